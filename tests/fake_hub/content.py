"""Endpoints that serve files: `resolve`, the cache of small files, and the CDN of large ones."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from tests.fake_hub.access import readable
from tests.fake_hub.messages import HubError, Reply, Request, route
from tests.fake_hub.store import Commit, File, Repo

if TYPE_CHECKING:
    from tests.fake_hub.server import Hub

_EXPIRED = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"""
_TWO_TOKENS = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message></Error>"""


class Signer:
    """Signs download URLs; a new one does not know the signatures of the old one."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(16)

    def query(self, path: str, expires: float) -> str:
        return urlencode({"Expires": f"{expires:.3f}", "Signature": self._sign(path, expires)})

    def accepts(self, path: str, expires: float, signature: str) -> bool:
        good = hmac.compare_digest(self._sign(path, expires), signature)
        return good and time.time() < expires

    def _sign(self, path: str, expires: float) -> str:
        text = f"{path} {expires:.3f}".encode()
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()


def find_commit(repo: Repo, revision: str) -> Commit:
    commit = repo.resolve(revision)
    if commit is None:
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return commit


def find_file(commit: Commit, path: str) -> File:
    file = commit.files.get(path)
    if file is None:
        headers = {"X-Repo-Commit": commit.sha}
        raise HubError(404, "Entry not found", "EntryNotFound", headers)
    return file


@route("GET HEAD", "/{repo}/resolve/{revision}/{file}")
def resolve(hub: Hub, request: Request, repo: str, revision: str, file: str) -> Reply:
    """Redirects: large files to a signed URL of the CDN, small ones to the Hub's own cache."""
    store = readable(hub, request, repo)
    commit = find_commit(store, revision)
    request.entry.commit = commit.sha
    found = find_file(commit, file)
    size = found.size if request.resize is None else request.resize
    headers = {
        "X-Repo-Commit": commit.sha,
        "X-Linked-Size": str(size),
        "X-Linked-ETag": f'"{found.etag}"',
        "Accept-Ranges": "bytes",
    }
    path = f"{repo}/{commit.sha}/{quote(file)}"
    if found.sha256 is None:
        location = f"/api/resolve-cache/models/{path}?etag={found.etag}"
        return Reply(307, {**headers, "Location": location}, b"Temporary Redirect")
    query = hub.signer.query(f"/cdn/{repo}/{commit.sha}/{file}", time.time() + hub.url_lifetime)
    location = f"{hub.cdn_url}/cdn/{path}?{query}"
    return Reply(302, {**headers, "Location": location}, b"Found. Redirecting to the CDN")


@route("GET HEAD", "/api/resolve-cache/models/{repo}/{revision}/{file}")
def resolve_cache(hub: Hub, request: Request, repo: str, revision: str, file: str) -> Reply:
    commit = find_commit(readable(hub, request, repo), revision)
    request.entry.commit = commit.sha
    return serve(request, find_file(commit, file), commit, file)


@route("GET HEAD", "/cdn/{repo}/{revision}/{file}")
def cdn(hub: Hub, request: Request, repo: str, revision: str, file: str) -> Reply:
    """Serves whoever has a URL whose signature is good; like S3, refuses a token on top of it."""
    request.entry.commit = revision
    if request.token is not None:
        return Reply(400, {"Content-Type": "application/xml"}, _TWO_TOKENS)
    expires = float(request.query.get("Expires", ["0"])[0])
    signature = request.query.get("Signature", [""])[0]
    if not hub.signer.accepts(request.entry.path, expires, signature):
        return Reply(403, {"Content-Type": "application/xml"}, _EXPIRED)
    commit = find_commit(hub.repos[repo], revision)
    return serve(request, find_file(commit, file), commit, file)


def serve(request: Request, file: File, commit: Commit, path: str) -> Reply:
    """The file, or the one range of it that was asked for."""
    size = file.size if request.resize is None else request.resize
    headers = {
        "ETag": f'"{file.etag}"',
        "X-Repo-Commit": commit.sha,
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
        "Content-Disposition": f'inline; filename="{PurePosixPath(path).name}";',
    }
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", (request.entry.range or "").replace(" ", ""))
    if asked is None or not any(asked.groups()):
        return Reply(200, headers, file=file, stop=size)
    first, last = asked.groups()
    if first:
        start, stop = int(first), min(int(last) + 1, size) if last else size
    else:
        start, stop = max(size - int(last), 0), size
    if start >= stop:
        return Reply(416, {**headers, "Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return Reply(206, headers, file=file, start=start, stop=stop)
