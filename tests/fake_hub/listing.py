"""Endpoints that describe a revision: its info, its tree, its history."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

from tests.fake_hub import card
from tests.fake_hub.access import visible
from tests.fake_hub.content import find_commit
from tests.fake_hub.messages import HubError, Reply, Request, json_reply, route
from tests.fake_hub.store import Commit, File, Repo

if TYPE_CHECKING:
    from tests.fake_hub.server import Hub


@route("GET", "/api/models/{repo}/tree/{revision}(?:/{file})?")
def tree(hub: Hub, request: Request, repo: str, revision: str, file: str = "") -> Reply:
    """One page of a folder, or with `recursive` of all below it; the next one by a Link header."""
    store = visible(hub, request, repo)
    commit = find_commit(store, revision)
    request.entry.commit = commit.sha
    prefix = f"{file.strip('/')}/" if file else ""
    paths = [path for path in [*commit.folders(), *commit.files] if path.startswith(prefix)]
    if prefix and not paths:
        headers = {"X-Repo-Commit": commit.sha}
        message = f"{file} does not exist on {revision!r}"
        raise HubError(404, message, "EntryNotFound", headers)
    if not request.flag("recursive"):
        paths = [path for path in paths if "/" not in path.removeprefix(prefix)]
    expand = request.flag("expand")
    page, headers = _page(hub, request, sorted(paths), hub.page_size)
    headers["X-Repo-Commit"] = commit.sha
    return json_reply([_entry(store, commit, path, expand) for path in page], headers=headers)


@route("POST", "/api/models/{repo}/paths-info/{revision}")
def paths_info(hub: Hub, request: Request, repo: str, revision: str) -> Reply:
    """The files and folders among the given paths; the others are left out."""
    store = visible(hub, request, repo)
    commit = find_commit(store, revision)
    form = parse_qs(request.body().decode())
    expand = form.get("expand", ["false"])[0].lower() == "true"
    known = [path for path in form.get("paths", []) if path in {*commit.files, *commit.folders()}]
    return json_reply([_entry(store, commit, path, expand) for path in known])


@route("GET", "/api/models/{repo}/commits/{revision}")
def commits(hub: Hub, request: Request, repo: str, revision: str) -> Reply:
    store = visible(hub, request, repo)
    history = list(store.history(find_commit(store, revision)))
    page, headers = _page(hub, request, history, hub.commits_page_size)
    headers["X-Total-Count"] = str(len(history))
    answer = [
        {
            "id": commit.sha,
            "title": commit.title,
            "message": commit.description,
            "authors": [{"user": commit.author}],
            "date": hub_time(commit.date),
        }
        for commit in page
    ]
    return json_reply(answer, headers=headers)


def _page(
    hub: Hub, request: Request, items: Sequence[Any], size: int
) -> tuple[Sequence[Any], dict[str, str]]:
    """The page that the request's cursor points to and the headers that lead to the next one."""
    query = request.query
    start = int(query.get("cursor", ["0"])[0])
    if start + size >= len(items):
        return items[start:], {}
    query["cursor"] = [str(start + size)]
    link = f"{hub.url}{request.target}?{urlencode(query, doseq=True)}"
    return items[start : start + size], {"Link": f'<{link}>; rel="next"'}


def _entry(repo: Repo, commit: Commit, path: str, expand: bool) -> dict[str, Any]:
    file = commit.files.get(path)
    if file is None:
        entry: dict[str, Any] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": path}
    else:
        entry = {"type": "file", "oid": file.oid, "size": file.size, "path": path}
        if file.sha256:
            entry["lfs"] = _lfs(file, "oid")
    if expand:
        last = _last_change(repo, commit, path)
        entry["lastCommit"] = {"id": last.sha, "title": last.title, "date": hub_time(last.date)}
        if file is not None:
            scan = {"status": "safe", "avScan": None, "pickleImportScan": None}
            entry["securityFileStatus"] = scan
    return entry


def _lfs(file: File, name_of_sha256: str) -> dict[str, Any]:
    return {name_of_sha256: file.sha256, "size": file.size, "pointerSize": file.pointer_size}


def _last_change(repo: Repo, commit: Commit, path: str) -> Commit:
    """The newest commit after which a file, or a folder's content, was as it is now."""

    def below(files: Mapping[str, File]) -> dict[str, str]:
        return {
            name: file.oid
            for name, file in files.items()
            if name == path or name.startswith(f"{path}/")
        }

    now, last = below(commit.files), commit
    for older in repo.history(commit):
        if below(older.files) != now:
            break
        last = older
    return last


@route("GET", "/api/models/{repo}/revision/{revision}")
def revision_info(hub: Hub, request: Request, repo: str, revision: str) -> Reply:
    store = visible(hub, request, repo)
    commit = find_commit(store, revision)
    request.entry.commit = commit.sha
    return json_reply(
        _selected(request, _info(store, commit, hub.tells_blobs and request.flag("blobs")))
    )


@route("GET", "/api/models/{repo}")
def repo_info(hub: Hub, request: Request, repo: str) -> Reply:
    store = visible(hub, request, repo)
    commit = find_commit(store, "main")
    request.entry.commit = commit.sha
    return json_reply(
        _selected(request, _info(store, commit, hub.tells_blobs and request.flag("blobs")))
    )


def _selected(request: Request, info: dict[str, Any]) -> dict[str, Any]:
    """All of it, or what `expand` asks for."""
    wanted = request.query.get("expand", []) + request.query.get("expand[]", [])
    if not wanted:
        return info
    return {key: value for key, value in info.items() if key in {"_id", "id", *wanted}}


def _info(repo: Repo, commit: Commit, blobs: bool) -> dict[str, Any]:
    readme = commit.files.get("README.md")
    data = card.front_matter(readme.read().decode(errors="replace")) if readme else {}
    config = commit.files.get("config.json")
    return {
        "_id": repo.id,
        "id": repo.id,
        "modelId": repo.id,
        "author": repo.namespace,
        "sha": commit.sha,
        "createdAt": hub_time(repo.created),
        "lastModified": hub_time(commit.date),
        "private": repo.private,
        "gated": repo.gated,
        "disabled": repo.disabled,
        "downloads": 0,
        "likes": 0,
        "library_name": data.get("library_name"),
        "pipeline_tag": data.get("pipeline_tag"),
        "tags": _tags(data),
        "cardData": json.loads(json.dumps(data, default=str)) or None,
        "config": _config(config) if config else None,
        "siblings": [_sibling(path, file, blobs) for path, file in sorted(commit.files.items())],
        "spaces": [],
        "usedStorage": sum(file.size for file in commit.files.values()),
        "safetensors": _parameters(commit.files.items()),
    }


def _tags(data: Mapping[str, Any]) -> list[str]:
    base = data.get("base_model") or []
    relation = data.get("base_model_relation", "finetune")
    tags = [str(tag) for tag in data.get("tags") or []]
    tags += [f"base_model:{name}" for name in ([base] if isinstance(base, str) else base)]
    tags += [
        f"base_model:{relation}:{name}" for name in ([base] if isinstance(base, str) else base)
    ]
    if isinstance(data.get("license"), str):
        tags.append(f"license:{data['license']}")
    if data.get("library_name"):
        tags.insert(0, str(data["library_name"]))
    return tags


def _config(file: File) -> dict[str, Any] | None:
    try:
        config = json.loads(file.read())
    except ValueError:
        return None
    return {key: config[key] for key in ("architectures", "model_type") if key in config}


def _sibling(path: str, file: File, blobs: bool) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": path}
    if blobs:
        sibling |= {"size": file.size, "blobId": file.oid}
        if file.sha256:
            sibling["lfs"] = _lfs(file, "sha256")
    return sibling


def _parameters(files: Iterable[tuple[str, File]]) -> dict[str, Any] | None:
    """Numbers of parameters by dtype, from the headers of the safetensors files at the root."""
    counts: dict[str, int] = {}
    for path, file in files:
        if "/" in path or not path.endswith(".safetensors"):
            continue
        try:
            length = int.from_bytes(file.read(0, 8), "little")
            header = json.loads(file.read(8, 8 + min(length, 25_000_000)))
        except (OSError, ValueError):
            return None
        for name, tensor in header.items():
            if name != "__metadata__":
                dtype = tensor["dtype"]
                counts[dtype] = counts.get(dtype, 0) + math.prod(tensor["shape"])
    return {"parameters": counts, "total": sum(counts.values())} if counts else None


def hub_time(date: datetime) -> str:
    return date.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
