"""Endpoints about accounts, repos, refs and pull requests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tests.fake_hub import card
from tests.fake_hub.access import (
    Token,
    identify,
    readable,
    repo_not_found,
    visible,
    writable,
    writer,
)
from tests.fake_hub.content import find_commit
from tests.fake_hub.listing import hub_time
from tests.fake_hub.messages import HubError, Reply, Request, json_reply, route
from tests.fake_hub.store import PullRequest, Repo, ref_name_problem

if TYPE_CHECKING:
    from tests.fake_hub.server import Hub


@route("GET", "/api/whoami-v2")
def whoami(hub: Hub, request: Request) -> Reply:
    token = identify(hub, request)
    if token is None:
        raise HubError(401, "Invalid username or password.")
    return json_reply(
        {
            "type": "user",
            "id": token.user,
            "name": token.user,
            "fullname": token.user,
            "isPro": False,
            "orgs": [{"type": "org", "name": name} for name in _orgs(hub, token)],
            "auth": {
                "type": "access_token",
                "accessToken": {"displayName": "test", "role": token.role},
            },
        }
    )


def _orgs(hub: Hub, token: Token) -> list[str]:
    """The organizations of a token; every namespace that has a repo, where it reaches all."""
    if token.orgs is not None:
        return list(token.orgs)
    return sorted({repo.namespace for repo in hub.repos.values()} - {token.user})


@route("POST", "/api/validate-yaml")
def validate_yaml(hub: Hub, request: Request) -> Reply:
    errors, warnings = card.validate(request.json()["content"])
    answer = {
        "errors": [{"message": text} for text in errors],
        "warnings": [{"message": text} for text in warnings],
    }
    return json_reply(answer, 400 if errors else 200)


@route("POST", "/api/repos/create")
def create_repo(hub: Hub, request: Request) -> Reply:
    token = writer(hub, request)
    wanted = request.json()
    namespace, name = wanted.get("organization") or token.user, wanted["name"]
    repo_id = f"{namespace}/{name}"
    if not token.belongs_to(namespace):
        message = f'You don\'t have the rights to create a model under the namespace "{namespace}"'
        raise HubError(403, message)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}", name) or "--" in name or ".." in name:
        raise HubError(400, f"Invalid repo name: {repo_id}")
    answer = {"url": f"{hub.url}/{repo_id}", "name": repo_id, "id": repo_id}
    with hub.lock:
        if repo_id in hub.repos:
            raise HubError(409, "You already created this model repo", body=answer)
        hub.create_repo(repo_id, wanted.get("visibility") == "private", author=token.user)
    return json_reply(answer)


@route("DELETE", "/api/repos/delete")
def delete_repo(hub: Hub, request: Request) -> Reply:
    token = writer(hub, request)
    wanted = request.json()
    repo_id = f"{wanted.get('organization') or token.user}/{wanted['name']}"
    if repo_id not in hub.repos:
        raise repo_not_found(token)
    writable(hub, request, repo_id)
    del hub.repos[repo_id]
    return Reply()


@route("PUT", "/api/models/{repo}/settings")
def settings(hub: Hub, request: Request, repo: str) -> Reply:
    store = writable(hub, request, repo)
    wanted = request.json()
    store.gated = wanted.get("gated", store.gated)
    if "visibility" in wanted:
        store.private = wanted["visibility"] == "private"
    return json_reply(wanted)


@route("GET", "/api/models/{repo}/auth-check")
def auth_check(hub: Hub, request: Request, repo: str) -> Reply:
    readable(hub, request, repo)
    return json_reply({"status": "ok"})


@route("GET", "/api/models/{repo}/auth-check/write")
def auth_check_write(hub: Hub, request: Request, repo: str) -> Reply:
    writable(hub, request, repo)
    return json_reply({"status": "ok"})


@route("GET", "/api/models/{repo}/refs")
def refs(hub: Hub, request: Request, repo: str) -> Reply:
    store = visible(hub, request, repo)

    def entries(prefix: str, targets: Mapping[str, str]) -> list[dict[str, str]]:
        return [
            {"name": name, "ref": prefix + name, "targetCommit": sha}
            for name, sha in sorted(targets.items())
        ]

    answer = {
        "branches": entries("refs/heads/", store.branches),
        "tags": entries("refs/tags/", store.tags),
        "converts": [],
    }
    if request.flag("include_prs"):
        heads = {str(num): pull.head for num, pull in store.pulls.items()}
        answer["pullRequests"] = entries("refs/pr/", heads)
    return json_reply(answer)


@route("POST", "/api/models/{repo}/branch/{name}")
def create_branch(hub: Hub, request: Request, repo: str, name: str) -> Reply:
    store = writable(hub, request, repo)
    wanted = request.json()
    _check_ref_name(name)
    with store.lock:
        start = find_commit(store, wanted.get("startingPoint") or "main")
        if name in store.branches and not wanted.get("overwrite"):
            raise HubError(409, f"Reference already exists: refs/heads/{name}")
        store.branches[name] = start.sha
    return json_reply({"success": True})


@route("DELETE", "/api/models/{repo}/branch/{name}")
def delete_branch(hub: Hub, request: Request, repo: str, name: str) -> Reply:
    store = writable(hub, request, repo)
    if name == "main":
        raise HubError(403, "Cannot delete the default branch")
    if store.branches.pop(name, None) is None:
        raise HubError(404, f"Invalid rev id: {name}", "RevisionNotFound")
    return json_reply({"success": True})


@route("POST", "/api/models/{repo}/tag/{revision}")
def create_tag(hub: Hub, request: Request, repo: str, revision: str) -> Reply:
    store = writable(hub, request, repo)
    name = request.json()["tag"]
    _check_ref_name(name)
    with store.lock:
        target = find_commit(store, revision)
        if name in store.tags:
            raise HubError(409, f"Tag reference exists already: refs/tags/{name}")
        store.tags[name] = target.sha
    return json_reply({"success": True})


@route("DELETE", "/api/models/{repo}/tag/{name}")
def delete_tag(hub: Hub, request: Request, repo: str, name: str) -> Reply:
    if writable(hub, request, repo).tags.pop(name, None) is None:
        raise HubError(404, f"Invalid rev id: {name}", "RevisionNotFound")
    return json_reply({"success": True})


def _check_ref_name(name: str) -> None:
    problem = ref_name_problem(name)
    if problem:
        raise HubError(400, problem)


@route("GET", "/api/models/{repo}/discussions")
def discussions(hub: Hub, request: Request, repo: str) -> Reply:
    store = visible(hub, request, repo)
    found = [_discussion(store, pull) for pull in store.pulls.values()]
    return json_reply({"discussions": found, "count": len(found), "start": 0})


@route("POST", "/api/models/{repo}/discussions")
def open_discussion(hub: Hub, request: Request, repo: str) -> Reply:
    """Opens a pull request without a commit; plain discussions are not kept here."""
    store = writable(hub, request, repo, pull_request=True)
    wanted = request.json()
    if not wanted["pullRequest"]:
        raise HubError(400, "The test Hub has pull requests only")
    author = writer(hub, request).user
    with store.lock:
        pull = store.open_pull(wanted["title"], wanted["description"], author, "main")
    return json_reply({"num": pull.num, "pullRequest": True})


@route("GET", "/api/models/{repo}/discussions/{num}")
def discussion(hub: Hub, request: Request, repo: str, num: str) -> Reply:
    store = visible(hub, request, repo)
    pull = store.pulls.get(int(num))
    if pull is None:
        raise HubError(404, f"No discussion {num}")
    details = {"changes": {"base": f"refs/heads/{pull.base}"}, "filesWithConflicts": []}
    return json_reply({**_discussion(store, pull), **details, "events": []})


def _discussion(repo: Repo, pull: PullRequest) -> dict[str, Any]:
    return {
        "num": pull.num,
        "title": pull.title,
        "author": {"name": pull.author},
        "createdAt": hub_time(pull.date),
        "status": pull.status,
        "isPullRequest": True,
        "repo": {"name": repo.id, "type": "model"},
    }
