"""Requests and replies, the errors of the Hub, and the table of endpoints."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from tests.fake_hub.log import Entry
from tests.fake_hub.store import File

if TYPE_CHECKING:
    from tests.fake_hub.server import Hub

_BLOCK = 1 << 20  # bytes read from a request's body at a time


class HubError(Exception):
    """An answer that refuses: status, `X-Error-Code` and `X-Error-Message`, `{"error": ...}`."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})
        self.body = dict(body or {})

    def reply(self) -> Reply:
        headers = {"X-Error-Message": self.message, **self.headers}
        if self.code:
            headers["X-Error-Code"] = self.code
        return json_reply({"error": self.message, **self.body}, self.status, headers)


@dataclass
class Reply:
    """An answer; the body is `body`, or bytes `start` to `stop` of `file` when there is one."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    file: File | None = None
    start: int = 0
    stop: int = 0

    @property
    def length(self) -> int:
        return self.stop - self.start if self.file else len(self.body)


def json_reply(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    body = json.dumps(value, default=str).encode()
    return Reply(
        status, {"Content-Type": "application/json; charset=utf-8", **(headers or {})}, body
    )


@dataclass
class Request:
    """A request whose body has not been read yet."""

    entry: Entry
    target: str  # the path, percent-encoded
    raw_query: str  # the query, percent-encoded
    stream: BufferedIOBase
    token: str | None
    resize: int | None = None  # set by a fault: serve files as if they had this size
    _done: bool = False

    @property
    def method(self) -> str:
        return self.entry.method

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(self.raw_query)

    def flag(self, name: str) -> bool:
        """Whether a query parameter is there and true (`?create_pr=1`, `?recursive=true`)."""
        return self.query.get(name, ["0"])[0].lower() in ("1", "true")

    def blocks(self) -> Iterator[bytes]:
        """The body in blocks; may be read once."""
        if self._done:
            return
        self._done = True
        headers = self.entry.headers
        if "chunked" in headers.get("transfer-encoding", "").lower():
            blocks = self._chunks()
        else:
            blocks = self._exactly(int(headers.get("content-length", 0)))
        for block in blocks:
            self.entry.received += len(block)
            yield block

    def _exactly(self, count: int) -> Iterator[bytes]:
        while count > 0:
            block = self.stream.read(min(count, _BLOCK))
            if not block:
                raise ConnectionError("the client went away in the middle of a body")
            count -= len(block)
            yield block

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.stream.readline().split(b";")[0], 16):
            yield from self._exactly(size)
            self.stream.readline()
        while self.stream.readline().strip():
            pass  # trailers

    def body(self) -> bytes:
        return b"".join(self.blocks())

    def json(self) -> Any:
        return json.loads(self.body() or b"{}")

    def save(self, path: Path) -> tuple[int, str]:
        """Write the body to a file; returns its size and sha256."""
        digest = hashlib.sha256()
        size = 0
        with path.open("wb") as stream:
            for block in self.blocks():
                stream.write(block)
                digest.update(block)
                size += len(block)
        return size, digest.hexdigest()

    def drain(self) -> None:
        """Read what is left of the body, so that the connection can be used again."""
        for _ in self.blocks():
            pass


Endpoint = Callable[..., Reply]
_routes: list[tuple[frozenset[str], re.Pattern[str], Endpoint]] = []

_PARTS = {
    "{repo}": r"(?P<repo>[^/]+/[^/]+|[^/]+)",
    "{revision}": r"(?P<revision>[^/]+)",
    "{name}": r"(?P<name>[^/]+)",
    "{file}": r"(?P<file>.+)",
    "{num}": r"(?P<num>\d+)",
}


def route(methods: str, pattern: str) -> Callable[[Endpoint], Endpoint]:
    """Register an endpoint: `endpoint(hub, request, **parts of the path, percent-decoded)`."""
    for part, expression in _PARTS.items():
        pattern = pattern.replace(part, expression)

    def register(endpoint: Endpoint) -> Endpoint:
        _routes.append((frozenset(methods.split()), re.compile(pattern), endpoint))
        return endpoint

    return register


def dispatch(hub: Hub, request: Request) -> Reply:
    """Find the endpoint of a request and let it answer."""
    for methods, pattern, endpoint in _routes:
        found = pattern.fullmatch(request.target)
        if found and request.method in methods:
            parts = {name: unquote(value) for name, value in found.groupdict().items() if value}
            entry = request.entry
            entry.route = endpoint.__name__
            entry.repo = parts.get("repo")
            entry.revision = parts.get("revision")
            entry.file = parts.get("file")
            return endpoint(hub, request, **parts)
    raise HubError(404, f"The test Hub has no endpoint for {request.method} {request.target}")
