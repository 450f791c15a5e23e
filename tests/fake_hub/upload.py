"""Endpoints that take files in: preupload, LFS batch, the uploads themselves, and the commit."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tests.fake_hub.access import writable, writer
from tests.fake_hub.content import find_commit
from tests.fake_hub.messages import HubError, Reply, Request, json_reply, route
from tests.fake_hub.store import Commit, File, Repo, file_from_bytes, is_lfs, lfs_file

if TYPE_CHECKING:
    from tests.fake_hub.server import Hub


@route("POST", "/api/models/{repo}/preupload/{revision}")
def preupload(hub: Hub, request: Request, repo: str, revision: str) -> Reply:
    """Which files go through LFS, and what the revision has at their paths already."""
    store = writable(hub, request, repo, request.flag("create_pr"))
    commit = find_commit(store, revision)
    answers = []
    for item in request.json()["files"]:
        path = item["path"]
        lfs = is_lfs(commit.files, path, item["size"], base64.b64decode(item["sample"]))
        there = commit.files.get(path)
        answers.append(
            {
                "path": path,
                "uploadMode": "lfs" if lfs else "regular",
                "shouldIgnore": False,
                "oid": there.etag if there else None,
            }
        )
    return json_reply({"files": answers, "commitOid": commit.sha})


@route("POST", r"/{repo}\.git/info/lfs/objects/batch")
def lfs_batch(hub: Hub, request: Request, repo: str) -> Reply:
    writable(hub, request, repo, pull_request=True)
    wanted = request.json()
    multipart = "multipart" in wanted["transfers"]
    objects = [_instructions(hub, repo, item, multipart) for item in wanted["objects"]]
    parts = any("chunk_size" in _upload_header(item) for item in objects)
    return json_reply({"transfer": "multipart" if parts else "basic", "objects": objects})


def _upload_header(item: Mapping[str, Any]) -> Mapping[str, str]:
    header: Mapping[str, str] = item.get("actions", {}).get("upload", {}).get("header", {})
    return header


def _instructions(hub: Hub, repo: str, item: Mapping[str, Any], multipart: bool) -> dict[str, Any]:
    oid, size, limit = item["oid"], item["size"], hub.multipart_size
    if oid in hub.uploads:
        return {"oid": oid, "size": size}
    verify = {"href": f"{hub.url}/{repo}.git/info/lfs/objects/verify"}
    upload: dict[str, Any] = {"href": f"{hub.cdn_url}/lfs/{oid}"}
    if multipart and limit is not None and size > limit:
        number = -(-size // limit)
        header = {str(part): f"{hub.cdn_url}/lfs/{oid}/{part}" for part in range(1, number + 1)}
        upload = {
            "href": f"{hub.url}/api/complete_multipart/{oid}",
            "header": {"chunk_size": str(limit), **header},
        }
    return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}


@route("PUT", "/lfs/{name}")
def lfs_put(hub: Hub, request: Request, name: str) -> Reply:
    """An upload in one piece, kept only when its sha256 is the one announced."""
    part = hub.folder / f"part-{next(hub.parts)}"
    size, sha256 = request.save(part)
    if sha256 != name:
        part.unlink()
        raise HubError(400, f"The content has sha256 {sha256}, announced was {name}")
    path = part.replace(hub.folder / sha256)
    hub.uploads[sha256] = lfs_file(path, size, sha256)
    return Reply(headers={"ETag": f'"{sha256}"'})


@route("PUT", "/lfs/{name}/{num}")
def lfs_put_part(hub: Hub, request: Request, name: str, num: str) -> Reply:
    _, sha256 = request.save(hub.folder / f"{name}-{num}")
    return Reply(headers={"ETag": f'"{sha256}"'})


@route("POST", "/api/complete_multipart/{name}")
def complete_multipart(hub: Hub, request: Request, name: str) -> Reply:
    """Joins the parts of an upload."""
    joined = hub.folder / f"part-{next(hub.parts)}"
    with joined.open("wb") as stream:
        for part in request.json()["parts"]:
            stream.write((hub.folder / f"{name}-{part['partNumber']}").read_bytes())
    data = file_from_bytes(joined.read_bytes(), lfs=True)
    if data.sha256 != name:
        raise HubError(400, f"The parts have sha256 {data.sha256}, announced was {name}")
    hub.uploads[name] = lfs_file(joined.replace(hub.folder / name), data.size, name)
    return json_reply({})


@route("POST", r"/{repo}\.git/info/lfs/objects/verify")
def lfs_verify(hub: Hub, request: Request, repo: str) -> Reply:
    writable(hub, request, repo, pull_request=True)
    wanted = request.json()
    file = hub.uploads.get(wanted["oid"])
    if file is None or file.size != wanted["size"]:
        raise HubError(404, f"LFS has no object {wanted['oid']} of {wanted['size']} bytes")
    return json_reply({})


@route("POST", "/api/models/{repo}/commit/{revision}")
def commit(hub: Hub, request: Request, repo: str, revision: str) -> Reply:
    """One commit from lines of JSON: a header, then operations; on a branch or a pull request."""
    create_pr = request.flag("create_pr")
    store = writable(hub, request, repo, create_pr)
    author = writer(hub, request).user
    lines = [json.loads(line) for line in request.body().splitlines() if line.strip()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    with store.lock:
        if revision not in store.branches and not revision.startswith("refs/pr/"):
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        head = find_commit(store, revision)
        expected = header.get("parentCommit")
        if expected is not None and not head.sha.startswith(expected):
            message = "A commit has happened since. Please refresh and try again."
            raise HubError(412, message, headers={"X-Repo-Commit": head.sha})
        tree = _apply(hub, head, lines)
        title, text = header["summary"], header.get("description", "")
        pull = store.open_pull(title, text, author, revision) if create_pr else None
        new = store.add_commit(tree, head, title, text, author)
        store.move(pull.ref if pull else revision, new.sha)
    answer = {
        "success": True,
        "commitOid": new.sha,
        "commitUrl": f"{hub.url}/{repo}/commit/{new.sha}",
        "hookOutput": "",
    }
    if pull is not None:
        answer["pullRequestUrl"] = f"{hub.url}/{repo}/discussions/{pull.num}"
    return json_reply(answer)


def _apply(hub: Hub, head: Commit, lines: list[dict[str, Any]]) -> dict[str, File]:
    """The files of the new commit; deletions first, so that a path may be deleted and added."""
    tree = dict(head.files)
    for line in sorted(lines, key=lambda line: not line["key"].startswith("deleted")):
        key, value = line["key"], line["value"]
        if key == "deletedFile":
            if value["path"] not in tree:
                raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
            del tree[value["path"]]
        elif key == "deletedFolder":
            prefix = value["path"].rstrip("/") + "/"
            gone = [path for path in tree if path.startswith(prefix)]
            if not gone:
                raise HubError(404, "A folder with this name doesn't exist", "EntryNotFound")
            for path in gone:
                del tree[path]
        elif key == "file":
            tree[value["path"]] = file_from_bytes(base64.b64decode(value["content"]), lfs=False)
        elif key == "lfsFile":
            tree[value["path"]] = _stored(hub, value["oid"])
        elif key != "header":
            raise HubError(400, f"Unknown operation in a commit: {key}")
    return tree


def _stored(hub: Hub, oid: str) -> File:
    """What LFS has under a sha256: an upload, or a file of any repo (for copies)."""
    if oid in hub.uploads:
        return hub.uploads[oid]
    for repo in list(hub.repos.values()):
        file = _find(repo, oid)
        if file is not None:
            return file
    message = (
        "Your push was rejected because an LFS pointer pointed to a file that does not exist: "
    )
    raise HubError(400, message + oid)


def _find(repo: Repo, oid: str) -> File | None:
    for known in list(repo.commits.values()):
        for file in known.files.values():
            if file.sha256 == oid:
                return file
    return None
