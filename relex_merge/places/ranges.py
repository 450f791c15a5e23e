"""Byte ranges of files in a place, many at a time.

The file system's own ``cat_ranges`` asks for them: at the same time where it is an asynchronous one
(s3fs, gcsfs), else one by one in threads of this module. A range that fails is asked for again as
``patiently`` does; the others are kept. A place whose file is shorter than it was says so by too
few bytes, which is an error that names the file. For S3 and for buckets on the Hub there is a short
cut (:mod:`relex_merge.places.urls`), and this is what remains where it does not lead.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from relex_merge.errors import RelexError
from relex_merge.hub.body import Span
from relex_merge.places.address import protocol_of
from relex_merge.places.errors import first_line, is_transient, patiently, place_errors
from relex_merge.places.pin import PlaceFile
from relex_merge.places.urls import Urls

AT_A_TIME = 16  # ranges, of all files of a run together
_NAP = 0.5  # seconds; so soon everything that waits notices that the run is over


class Transfers:
    """The requests of one run: so many at a time, and none any more once one has failed for good.

    All sources of a run share one, and any thread may use it.
    """

    def __init__(self) -> None:
        self._free = threading.Semaphore(AT_A_TIME)
        self._stopped = threading.Event()
        self._reason = RelexError("the run was stopped")
        self._urls = Urls()

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

    def size(self, file: PlaceFile) -> int:
        """Return the bytes of a file, as it was listed."""
        return file.size

    def read(self, file: PlaceFile, spans: Sequence[Span]) -> None:
        """Fill all spans of a file.

        Raises:
            RelexError: the place cannot or will not serve the file, which is named.
        """
        left = [span for span in spans if span.start < span.stop]
        if self._urls.serves(file):
            left = self._by_url(file, left)
        while left:
            with self._several(len(left)) as count:
                self._fill(file, left[:count])
            left = left[count:]

    def _by_url(self, file: PlaceFile, spans: Sequence[Span]) -> list[Span]:
        """Fill spans by the short cut; return those that it did not fill."""

        def fill(span: Span) -> bool:
            with self._free:
                return self._urls.fill(file, span, self._check)

        try:
            if len(spans) == 1:
                return [] if fill(spans[0]) else [*spans]
            with ThreadPoolExecutor(min(len(spans), AT_A_TIME), "relex-place") as pool:
                running = [pool.submit(fill, span) for span in spans]
            filled = [done.result() for done in running]
        except RelexError as error:
            raise self.stop(error) from error.__cause__
        return [span for span, full in zip(spans, filled, strict=True) if not full]

    @contextmanager
    def _several(self, wanted: int) -> Iterator[int]:
        """Wait for the right to ask for a range, and take as many more as are free."""
        self._free.acquire()
        count = 1
        while count < wanted and self._free.acquire(blocking=False):
            count += 1
        try:
            yield count
        finally:
            self._free.release(count)

    def _fill(self, file: PlaceFile, spans: Sequence[Span]) -> None:
        left = list(spans)

        def ask() -> None:
            self._check()
            fault: BaseException | None = None
            for span, got in zip(tuple(left), _ranges(file, left), strict=True):
                if isinstance(got, BaseException):
                    fault = got if fault is None or is_transient(fault) else fault
                    continue
                if len(got) != span.stop - span.start:
                    raise _too_short(file)
                span.take(got)
                left.remove(span)
            if fault is not None:
                raise fault

        try:
            with place_errors(file.name):
                patiently(ask, file.name, pause=self._pause)
        except RelexError as error:
            raise self.stop(error) from error.__cause__
        except Exception as error:  # a library's own way to say that there is no such range
            said = f"{file.name} cannot be read: {first_line(error)}"
            raise self.stop(RelexError(said)) from error

    def _pause(self, seconds: float) -> None:
        while seconds > 0:
            self._check()
            time.sleep(min(seconds, _NAP))
            seconds -= _NAP

    def _check(self) -> None:
        if self._stopped.is_set():
            raise self._reason


class FileReader:
    """Ranges of one file as bytes; what was read once is kept as long as this object.

    Args:
        file: in a place.
        transfers: whose requests they are.
    """

    def __init__(self, file: PlaceFile, transfers: Transfers) -> None:
        self._file = file
        self._transfers = transfers
        self._kept: list[tuple[int, bytes]] = []

    def __call__(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes from an offset on; fewer at the end of the file."""
        count = max(0, min(count, self._file.size - offset))
        for begin, kept in self._kept:
            if begin <= offset and offset + count <= begin + len(kept):
                return kept[offset - begin : offset - begin + count]
        into = bytearray(count)
        span = Span(offset, offset + count, deque([memoryview(into)]))
        self._transfers.read(self._file, [span])
        self._kept.append((offset, bytes(into)))
        return self._kept[-1][1]


def _ranges(file: PlaceFile, spans: Sequence[Span]) -> list[Any]:
    """Return the bytes of every span, or the exception in their place."""
    files, path = file.place.files, file.place.below(file.file)
    if files.async_impl:
        starts, stops = [s.start for s in spans], [s.stop for s in spans]
        found: list[Any] = files.cat_ranges(
            [path] * len(spans), starts, stops, batch_size=AT_A_TIME, on_error="return"
        )
        return found

    exact = {"cache_type": "none"} if protocol_of(file.place.address) == "hf" else {}

    def one(span: Span) -> Any:
        try:
            return files.cat_file(path, start=span.start, end=span.stop, **exact)
        except Exception as error:
            return error

    if len(spans) == 1:
        return [one(spans[0])]
    with ThreadPoolExecutor(len(spans), "relex-place") as pool:
        return list(pool.map(one, spans))


def _too_short(file: PlaceFile) -> RelexError:
    return RelexError(
        f"{file.name} is shorter than it was when the run began ({file.size:,} bytes); run again "
        "when nothing else writes to it"
    )
