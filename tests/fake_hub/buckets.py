"""Buckets, for reading: the newest files of the repo of the same name, without revisions."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from tests.fake_hub.access import visible
from tests.fake_hub.content import find_commit, resolve
from tests.fake_hub.listing import hub_time
from tests.fake_hub.messages import Reply, Request, json_reply, route

if TYPE_CHECKING:
    from tests.fake_hub.server import Hub


@route("GET", "/api/buckets/{repo}")
def bucket_info(hub: Hub, request: Request, repo: str) -> Reply:
    commit = find_commit(visible(hub, request, repo), "main")
    sizes = [file.size for file in commit.files.values()]
    info = {"id": repo, "private": False, "createdAt": hub_time(commit.date)}
    return json_reply({**info, "size": sum(sizes), "totalFiles": len(sizes)})


@route("GET", "/api/buckets/{repo}/tree(?:/{file})?")
def bucket_tree(hub: Hub, request: Request, repo: str, file: str = "") -> Reply:
    """All files whose path begins with a text, or with what is in one folder its folders too."""
    commit = find_commit(visible(hub, request, repo), "main")
    date = hub_time(commit.date)
    found: list[dict[str, object]] = []
    folders = set()
    for path, stored in commit.files.items():
        if not path.startswith(file):
            continue
        below = path.removeprefix(file).lstrip("/")
        if not request.flag("recursive") and "/" in below:
            top = PurePosixPath(file) / below.partition("/")[0]
            folders.add(top.as_posix())
            continue
        known = {"xetHash": stored.sha256 or stored.oid, "size": stored.size, "mtime": date}
        found.append({"type": "file", "path": path, "uploadedAt": date, **known})
    found += [{"type": "directory", "path": f, "uploadedAt": date} for f in sorted(folders)]
    return json_reply(found)


@route("GET HEAD", "/buckets/{repo}/resolve/{file}")
def bucket_file(hub: Hub, request: Request, repo: str, file: str) -> Reply:
    """Redirects as for a repo."""
    return resolve(hub, request, repo, "main", file)
