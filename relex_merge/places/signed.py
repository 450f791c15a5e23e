"""Ranges of S3 objects by signed URLs, received right into the buffers that they are meant for.

s3fs takes a body apart in Python, in one thread for all requests: 1.7 s of processor time for a GB,
and half a GB a second at most (``python -m tests.benchmarks.places``). It can also sign a URL with
its own credentials, whose body is received as one from the Hub (:mod:`relex_merge.hub.body`), for a
quarter of that. This is a short cut and nothing else: where a URL cannot be signed, or is not
served as asked, s3fs reads the range itself, and what it says is what the user is told.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from relex_merge.errors import RelexError
from relex_merge.hub.body import Span, receive_body
from relex_merge.places.address import protocol_of
from relex_merge.places.pin import PlaceFile

_VALID = 3600  # seconds that a URL is signed for
_RENEWED = 3000  # seconds after which another one is signed
_TIMEOUT = 20.0  # seconds without a byte


class SignedUrls:
    """The short cut of one run; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._urls: dict[str, tuple[str, float]] = {}
        self._client: Any = None
        self._served = False  # once was enough to know that it works here
        self._off = False

    def serves(self, file: PlaceFile) -> bool:
        """Tell whether it is worth a try for a file."""
        return not self._off and protocol_of(file.place.address) in ("s3", "s3a")

    def fill(self, file: PlaceFile, span: Span, check: Callable[[], None]) -> bool:
        """Fill a span as far as that goes, and tell whether it is full.

        Args:
            file: in a place that is served.
            span: moves on as far as bytes have come.
            check: called before each bit; it may raise.

        Raises:
            RelexError: the object is another one than when it was listed, or ``check`` says so.
        """
        try:
            self._request(file, span, check)
        except RelexError:
            raise
        except Exception:
            self._off = self._off or not self._served
            return False
        self._served = True
        return True

    def _request(self, file: PlaceFile, span: Span, check: Callable[[], None]) -> None:
        headers = {
            "Range": f"bytes={span.start}-{span.stop - 1}",
            "Accept-Encoding": "identity",
        }
        with self._session().stream("GET", self._url(file), headers=headers) as response:
            asked = f"bytes {span.start}-{span.stop - 1}/"
            if response.status_code != 206 or not response.headers.get(
                "content-range", ""
            ).startswith(asked):
                raise ConnectionError(f"status {response.status_code}")
            etag = response.headers.get("etag")
            if etag and file.version.startswith('"') and etag != file.version:
                raise RelexError(
                    f"{file.name} changed during the run; run again when nothing else writes to it"
                )
            receive_body(response, span, check)

    def _url(self, file: PlaceFile) -> str:
        now = time.monotonic()
        url, signed = self._urls.get(file.name, ("", -float("inf")))
        if now - signed > _RENEWED:
            url = file.place.files.sign(file.place.below(file.file), expiration=_VALID)
            self._urls[file.name] = url, now
        return url

    def _session(self) -> Any:
        import httpx

        with self._lock:
            if self._client is None:
                self._client = httpx.Client(timeout=_TIMEOUT)
            return self._client
