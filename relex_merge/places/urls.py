"""Ranges of files by URL, received right into the buffers that they are meant for.

s3fs takes a body apart in Python, in one thread for all requests: 1.7 s of processor time for a GB,
and half a GB a second at most. The file system of buckets on the Hub reads blocks of its own. Both
know a URL, signed with their own credentials, whose body is received as one from a repo on the Hub
(:mod:`relex_merge.hub.body`), for a quarter of that (``python -m tests.benchmarks.places``). This
is a short cut and nothing else: where there is no URL, or it is not served as asked, the file
system reads the range itself, and what it says is what the user is told.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from relex_merge.errors import RelexError
from relex_merge.hub.body import Span, receive_body
from relex_merge.places.address import protocol_of
from relex_merge.places.pin import PlaceFile

_VALID = 3600  # seconds that a URL is signed for
_RENEWED = 3000  # seconds after which another one is signed
_TIMEOUT = 20.0  # seconds without a byte


@dataclass(frozen=True)
class _Address:
    """Where a file can be read for a while.

    Attributes:
        url: of the file.
        headers: what a request needs beside its range.
        made: seconds of the clock at which it was made.
    """

    url: str
    headers: Mapping[str, str]
    made: float


class Urls:
    """The short cut of one run; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, _Address] = {}
        self._client: Any = None
        self._served = False  # once was enough to know that it works here
        self._off = False

    def serves(self, file: PlaceFile) -> bool:
        """Tell whether it is worth a try for a file."""
        return not self._off and protocol_of(file.place.address) in ("s3", "s3a", "hf")

    def fill(self, file: PlaceFile, span: Span, check: Callable[[], None]) -> bool:
        """Fill a span as far as that goes, and tell whether it is full.

        Args:
            file: in a place that is served.
            span: moves on as far as bytes have come.
            check: called before each bit; it may raise.

        Raises:
            RelexError: the object is another one than when it was listed, or ``check`` says so.
        """
        began = time.monotonic()
        made = -float("inf")
        while made < began:  # of a URL that was known before the time may be over
            try:
                address = self._address(file)
                made = address.made
                self._request(file, address, span, check)
            except RelexError:
                raise
            except Exception:
                self._known.pop(file.name, None)
                if made == -float("inf"):
                    break
            else:
                self._served = True
                return True
        self._off = self._off or not self._served
        return False

    def _request(
        self, file: PlaceFile, address: _Address, span: Span, check: Callable[[], None]
    ) -> None:
        asked = f"bytes={span.start}-{span.stop - 1}"
        headers = {**address.headers, "Range": asked, "Accept-Encoding": "identity"}
        with self._session().stream("GET", address.url, headers=headers) as response:
            got = response.headers.get("content-range", "")
            if response.status_code != 206 or not got.startswith(asked.replace("=", " ") + "/"):
                raise ConnectionError(f"status {response.status_code}")
            if response.history:
                url = str(response.url)
                self._known[file.name] = _Address(url, {}, address.made)
            etag = response.headers.get("etag")
            if etag and file.version.startswith('"') and etag != file.version:
                raise RelexError(
                    f"{file.name} changed during the run; run again when nothing else writes to it"
                )
            receive_body(response, span, check)

    def _address(self, file: PlaceFile) -> _Address:
        """Return where a file can be read now."""
        known, now = self._known.get(file.name), time.monotonic()
        if known is None or now - known.made > _RENEWED:
            known = self._known[file.name] = _made(file, now)
        return known

    def _session(self) -> Any:
        from huggingface_hub import get_session

        with self._lock:
            if self._client is None:
                # one of its own: the Hub's is closed, for all, when a request to it is refused
                self._client = type(get_session())(timeout=_TIMEOUT, follow_redirects=True)
            return self._client


def _made(file: PlaceFile, now: float) -> _Address:
    """Return a new address, signed with the credentials of the file system."""
    files, path = file.place.files, file.place.below(file.file)
    if protocol_of(file.place.address) != "hf":
        return _Address(files.sign(path, expiration=_VALID), {}, now)
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    headers = build_hf_headers(token=files.token, library_name="relex-merge")
    return _Address(files.url(path), headers, now)
