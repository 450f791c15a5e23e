"""Byte ranges of files on the Hub, read straight to where they belong.

The Hub answers a request for a large file with a redirect to a signed URL that is good for a while.
It is asked for once a file, and again when it has expired. The commit is part of the address, so
whatever happens to a branch meanwhile, the bytes stay the same.

Network failure is the normal case: requests that fail are repeated as ``patiently`` does, and one
that breaks off goes on from the byte where it broke. Only a request that gets nowhere gives up.

Requests go through the client's own session, so that proxies, certificates, offline mode and
whatever else its users set hold here too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from relex_merge.errors import RelexError
from relex_merge.hub.body import Span, receive_body
from relex_merge.hub.download import Pin
from relex_merge.hub.errors import (
    TOKEN_HELP,
    http_error,
    is_of_request,
    patiently,
    request_error,
    status_of,
)

__all__ = ["REQUESTS", "Address", "Connections", "RemoteFile", "Span"]

T = TypeVar("T")

REQUESTS = 16  # at a time, of all files together
LONGEST_NAP = 0.5  # seconds; so soon everything that waits notices that the run is over
EXPIRED = frozenset({400, 401, 403})  # what a signed URL answers when its time is over


@dataclass(frozen=True)
class Address:
    """Where a file can be read for a while.

    Attributes:
        url: where its bytes are.
        headers: to be sent with each request.
        size: bytes of the file.
    """

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
        """Return the file's address; the Hub is asked when none is known.

        Raises:
            HTTPError: the client's errors.
            RelexError: the Hub does not say how long the file is.
        """
        with self._lock:
            if self._address is None:
                self._address = self._resolve()
            return self._address

    def forget(self, expired: Address) -> None:
        """Ask for a new address next time, unless another thread has done so already."""
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

    All sources of a run share one, and any thread may use it. A call returns when all that it has
    begun is over, so there is nothing to close.
    """

    def __init__(self) -> None:
        self._free = threading.Semaphore(REQUESTS)
        self._stopped = threading.Event()
        self._reason = RelexError("the run was stopped")

    def stop(self, reason: RelexError | None = None) -> RelexError:
        """Let all requests end soon, with ``reason``; the first reason counts and is returned."""
        if not self._stopped.is_set():
            self._reason = reason or self._reason
            self._stopped.set()
        return self._reason

    @contextmanager
    def stopped_by_errors(self) -> Iterator[None]:
        """Stop all requests, of other threads too, when an exception ends the block."""
        try:
            yield
        except BaseException:
            self.stop()
            raise

    def size(self, file: RemoteFile) -> int:
        """Return the bytes of a file, as the Hub says. Raises RelexError naming it."""
        return self._patiently(file, partial(self._address, file)).size

    def read(self, file: RemoteFile, spans: Iterable[Span]) -> None:
        """Fill all spans of a file; returns when no buffer is being written to any more.

        Raises:
            RelexError: the Hub cannot or will not serve the file, which is named.
        """
        spans = list(spans)
        if len(spans) < 2:
            for span in spans:
                self._read(file, span)
            return
        with ThreadPoolExecutor(min(len(spans), REQUESTS), "relex-http") as pool:
            running = [pool.submit(self._read, file, span) for span in spans]
        for done in running:
            done.result()

    def _address(self, file: RemoteFile) -> Address:
        with self._free:
            self._check()
            return file.address()

    def _read(self, file: RemoteFile, span: Span) -> None:
        self._patiently(file, partial(self._request, file, span), lambda: span.start)

    def _patiently(
        self, file: RemoteFile, call: Callable[[], T], reached: Callable[[], int] = int
    ) -> T:
        """Return the result of ``call``, repeated as long as ``reached`` moves on, and a while."""
        while True:
            before = reached()
            try:
                return patiently(call, pause=self._pause)
            except (http_error(), RuntimeError) as error:
                if not is_of_request(request_error(error)):
                    raise
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
        """Make one request for what is missing of a span, a second if the address had expired."""
        from huggingface_hub import constants, get_session, hf_raise_for_status

        for last in (False, True):
            with self._free:
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
                        receive_body(response, span, self._check)
                    except http_error():
                        raise
                    except OSError as error:
                        raise http_error()(str(error)) from error
                    return


def _check_range(response: Any, file: RemoteFile, span: Span, size: int) -> None:
    """Raise RelexError unless the answer holds what was asked for, of a file as long as known."""
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
    """Return what to tell a person."""
    error = request_error(error)
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
        f"{file.name} could not be read from the Hub: {reason}; then repeat the command, which "
        "keeps what is finished"
    )
