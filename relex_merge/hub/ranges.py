"""Byte ranges of files on the Hub, read straight to where they belong.

The Hub answers a request for a large file with a redirect to a signed URL that is good for a while.
It is asked for once a file, and again when it has expired. The commit is part of the address, so
whatever happens to a branch meanwhile, the bytes stay the same.

Network failure is the normal case: requests that fail are repeated as ``patiently`` does, and one
that breaks off goes on from the byte where it broke. Only a request that gets nowhere gives up.

Requests go through the client's own session, so that proxies, certificates, offline mode and
whatever else its users set hold here too. That session takes a body apart in Python, 64 kB and
three copies at a time; so, once it has read the head of an answer with a large body, the rest is
received from the connection's socket right into the buffers, at a quarter of the processor time.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from relex_merge.errors import RelexError
from relex_merge.hub.download import Pin
from relex_merge.hub.errors import TOKEN_HELP, blank_tokens, http_error, patiently, status_of

T = TypeVar("T")

REQUESTS = 16  # at a time, of all files together
ATTEMPTS = 6  # without a byte of progress: half a minute, or as long as the Hub asks for
LONGEST_NAP = 0.5  # seconds; so soon everybody who waits notices that the run is over
DIRECT = 2**20  # bytes; a body at least as long is worth a connection of its own
EXPIRED = frozenset({400, 401, 403})  # what a signed URL answers when its time is over


@dataclass
class Span:
    """Bytes [start, stop) of a file and the buffers that they fill, front to back.

    start moves on as bytes come in.
    """

    start: int
    stop: int
    views: deque[memoryview]

    def fill(self, receive: Callable[[memoryview], int]) -> None:
        """Fill the buffers; ``receive`` puts some bytes in front and says how many.

        Raises ConnectionError when it has none left.
        """
        while self.views:
            got = receive(self.views[0])
            if not got:
                raise ConnectionError("the connection was cut")
            self.start += got
            self.views[0] = self.views[0][got:]
            if not self.views[0]:
                self.views.popleft()


@dataclass(frozen=True)
class Address:
    """Where a file can be read for a while. size: bytes of the file."""

    url: str
    headers: Mapping[str, str]
    size: int


class RemoteFile:
    """One file at a Hub commit. ``name`` stands for it in messages."""

    def __init__(self, pin: Pin, path: str, label: str) -> None:
        self.name = f"{label}: {path}"
        self._pin = pin
        self._path = path
        self._lock = threading.Lock()
        self._address: Address | None = None

    def address(self) -> Address:
        """The file's address; the Hub is asked when none is known. Raises the client's errors."""
        with self._lock:
            if self._address is None:
                self._address = self._resolve()
            return self._address

    def forget(self, expired: Address) -> None:
        """Ask for a new address next time, unless somebody has done so already."""
        with self._lock:
            if self._address is expired:
                self._address = None

    def _resolve(self) -> Address:
        from importlib.metadata import version

        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        url = hf_hub_url(self._pin.repo, self._pin.path(self._path), revision=self._pin.sha)
        library: dict[str, Any] = {
            "library_name": "relex-merge",
            "library_version": version("relex-merge"),
        }
        found = get_hf_file_metadata(url, **library)
        if found.size is None:
            raise RelexError(f"{self.name}: the Hub does not say how long it is; use --no-stream")
        headers: dict[str, str] = build_hf_headers(**library)
        if urlsplit(found.location)[:2] != urlsplit(url)[:2]:
            headers.pop("authorization", None)  # a signed URL of another host is its own key
        return Address(found.location, headers, found.size)


class Connections:
    """The requests of one run: so many at a time, and none any more once one has failed for good.

    Any thread may use it. In a ``with`` block an exception stops all requests.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(REQUESTS, "relex-http")
        self._stopped = threading.Event()
        self._reason = RelexError("the run was stopped")

    def __enter__(self) -> Connections:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.stop()

    def stop(self, reason: RelexError | None = None) -> RelexError:
        """Let all requests end soon, with ``reason``; the first reason counts and is returned."""
        if not self._stopped.is_set():
            self._reason = reason or self._reason
            self._stopped.set()
        return self._reason

    def size(self, file: RemoteFile) -> int:
        """Bytes of a file, as the Hub says. Raises RelexError naming it."""
        return self._pool.submit(self._patiently, file, file.address).result().size

    def read(self, file: RemoteFile, spans: Iterable[Span]) -> None:
        """Fill all spans of a file; returns when no buffer is being written to any more.

        Raises RelexError naming the file when the Hub cannot or will not serve them.
        """
        running = [self._pool.submit(self._read, file, span) for span in spans]
        wait(running)
        for done in running:
            done.result()

    def _read(self, file: RemoteFile, span: Span) -> None:
        self._patiently(file, partial(self._request, file, span), lambda: span.start)

    def _patiently(
        self, file: RemoteFile, call: Callable[[], T], reached: Callable[[], int] = int
    ) -> T:
        """Result of ``call``, repeated as long as ``reached`` moves on, and then a while."""
        while True:
            before = reached()
            try:
                return patiently(call, attempts=ATTEMPTS, pause=self._pause)
            except http_error() as error:
                if reached() == before:
                    raise self.stop(_failure(file, error)) from error
            except RelexError as error:
                raise self.stop(error) from error.__cause__

    def _pause(self, seconds: float) -> None:
        while seconds > 0:
            self._check()
            time.sleep(min(seconds, LONGEST_NAP))
            seconds -= LONGEST_NAP

    def _check(self) -> None:
        if self._stopped.is_set():
            raise self._reason

    def _request(self, file: RemoteFile, span: Span) -> None:
        """One request for what is missing of a span, a second one if the address had expired."""
        from huggingface_hub import constants, get_session, hf_raise_for_status

        for last in (False, True):
            self._check()
            address = file.address()
            headers = {
                **address.headers,
                "Range": f"bytes={span.start}-{span.stop - 1}",
                "Accept-Encoding": "identity",
            }
            timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
            with get_session().stream(
                "GET", address.url, headers=headers, timeout=timeout
            ) as response:
                if response.status_code in EXPIRED and not last:
                    file.forget(address)
                    continue
                hf_raise_for_status(response)
                _check_range(response, file, span, address.size)
                try:
                    span.fill(_Body(response, self._check).receive)
                except http_error():
                    raise
                except OSError as error:
                    raise http_error()(str(error)) from error
                return


class _Body:
    """The body of an answer, received bit by bit."""

    def __init__(self, response: Any, check: Callable[[], None]) -> None:
        self._response = response
        self._check = check
        self._chunks = response.iter_raw()
        self._chunk = memoryview(b"")
        self._socket: Any = None

    def receive(self, into: memoryview) -> int:
        """Put the next bytes in front of ``into``; returns how many, 0 at the end."""
        self._check()
        if not self._chunk:
            if self._socket is not None:
                return int(self._socket.recv_into(into))
            self._chunk = memoryview(next(self._chunks, b""))
            self._socket = _socket_of(self._response)
        count = min(len(into), len(self._chunk))
        into[:count] = self._chunk[:count]
        self._chunk = self._chunk[count:]
        return count


def _socket_of(response: Any) -> Any:
    """The socket from which the rest of a body can be received as it is, or None.

    The first chunk of the body must have been taken: with it the client hands over all that it has
    read beyond the head. The connection cannot be used again afterwards, which a short body is not
    worth.
    """
    stream = response.extensions.get("network_stream")
    if (
        stream is None
        or response.http_version != "HTTP/1.1"
        or int(response.headers.get("content-length", 0)) < DIRECT
        or isinstance(stream.get_extra_info("ssl_object"), ssl.SSLObject)  # TLS within TLS
    ):
        return None
    return stream.get_extra_info("socket")


def _check_range(response: Any, file: RemoteFile, span: Span, size: int) -> None:
    """The answer holds the bytes that were asked for, of a file as long as the Hub has said."""
    if response.status_code != 206:
        raise RelexError(
            f"{file.name}: {urlsplit(str(response.url)).hostname} does not serve byte ranges "
            f"(status {response.status_code}); use --no-stream"
        )
    got = response.headers.get("content-range", "nothing")
    asked = f"bytes {span.start}-{span.stop - 1}/{size}"
    length = response.headers.get("content-length")
    if got != asked or length not in (None, str(span.stop - span.start)):
        raise RelexError(
            f"{file.name} is not what its header says: asked for {asked}, got {got} of "
            f"{length or 'unknown'} bytes; try --no-stream, or leave that checkpoint out"
        )


def _failure(file: RemoteFile, error: Exception) -> RelexError:
    """What to tell a person; the error's own text may hold a signed URL and is left out."""
    status = status_of(error)
    if status is None:
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        reason = f"no connection ({said}); check the network and HF_ENDPOINT"
    elif status in {401, 403, 404}:
        reason = f"status {status}; check that the repo is still there and {TOKEN_HELP}"
    elif status == 416:
        reason = "it is shorter than its header says; leave that checkpoint out"
    else:
        reason = f"status {status}; wait a while"
    return RelexError(
        blank_tokens(
            f"{file.name} could not be read from the Hub: {reason}; then repeat the command, "
            "which keeps what is finished"
        )
    )
