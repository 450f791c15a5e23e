"""Weights read from the Hub while they are needed: ranges of every revision, no copy on the disk.

Headers come first; after that every byte of a tensor is asked for once. A row of a piece is many
small ranges, most of them neighbours in their file, so that a few requests of megabytes serve it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from relex_merge.checkpoints.files import require_weights
from relex_merge.errors import RelexError
from relex_merge.hub.download import Pin
from relex_merge.hub.ranges import REQUESTS, Connections, RemoteFile, Span
from relex_merge.weights.files import Extent
from relex_merge.weights.header import (
    LENGTH_BYTES,
    Entry,
    HeaderError,
    header_length,
    parse_header,
)
from relex_merge.weights.shards import tensors_of
from relex_merge.weights.source import Range, Read, Source, TensorInfo, Traffic

LONGEST_SPAN = 16 * 2**20  # bytes; longer ones are cut, so that they come in parallel
WIDEST_GAP = 2**18  # bytes; to read over a smaller one is cheaper than another request


class HubSource(Source):
    """The safetensors files of one Hub commit, read by HTTP ranges.

    folder: holds the index of shards, where the commit has one; connections: shared by all sources
    of a run. Raises RelexError for anything that is not whole.
    """

    parallel_reads = REQUESTS
    remote = True

    def __init__(self, pin: Pin, folder: Path, label: str, connections: Connections) -> None:
        self.label = label
        self._pin = pin
        self._connections = connections
        self._extents: dict[str, Extent] = {}
        found = require_weights(pin.files, folder, label)
        self._files = {name: RemoteFile(pin, name, label) for name in found.files}
        held = {name: self._entries(file) for name, file in self._files.items()}
        tensors: dict[str, TensorInfo] = {}
        for tensor, name in tensors_of(held, found.places, label):
            entry = held[name][tensor]
            tensors[tensor] = entry.info
            self._extents[tensor] = Extent(name, entry.start)
        self.tensors = tensors

    def _entries(self, file: RemoteFile) -> dict[str, Entry]:
        size = self._connections.size(file)
        try:
            length = header_length(self._bytes(file, 0, min(LENGTH_BYTES, size)), size)
            return parse_header(self._bytes(file, LENGTH_BYTES, length), size, self.label)
        except HeaderError as error:
            raise RelexError(
                f"{file.name} {error}; its upload is not complete: leave that checkpoint out"
            ) from error

    def _bytes(self, file: RemoteFile, start: int, count: int) -> bytes:
        data = bytearray(count)
        self._connections.read(file, coalesce([(start, memoryview(data))]))
        return bytes(data)

    def read(self, reads: Sequence[Read]) -> None:
        """Ask for neighbouring ranges together; the bytes go straight to the buffers."""
        wanted: dict[str, list[tuple[int, memoryview]]] = {}
        for asked in reads:
            extent = self._extents[asked.name]
            wanted.setdefault(extent.file, []).append((extent.offset + asked.start, asked.into))
        for name, ranges in wanted.items():
            self._connections.read(self._files[name], coalesce(ranges))

    def traffic(self, ranges: Sequence[Range]) -> Traffic:
        """Count what :meth:`read` asks for, gaps that it reads over included."""
        places = []
        for r in ranges:
            extent = self._extents[r.name]
            places.append((extent.file, extent.offset + r.start, extent.offset + r.stop))
        spans: list[tuple[str, int, int]] = []
        for file, start, stop in sorted(places):
            if spans and spans[-1][0] == file and start - spans[-1][2] <= WIDEST_GAP:
                spans[-1] = (file, spans[-1][1], stop)
            else:
                spans.append((file, start, stop))
        lengths = [stop - start for _, start, stop in spans]
        return Traffic(sum(-(-length // LONGEST_SPAN) for length in lengths), sum(lengths))

    def fingerprint(self) -> list[Any]:
        """Repo and commit, and the folder in it."""
        return [*self._pin.mark]

    def stop(self) -> None:
        """Let all reads of the run end soon."""
        self._connections.stop()


def coalesce(ranges: Iterable[tuple[int, memoryview]]) -> list[Span]:
    """As few spans as possible for byte offsets and the buffers to fill from there."""
    spans: list[Span] = []
    for begin, buffer in sorted(ranges, key=lambda asked: asked[0]):
        start, rest = begin, buffer
        while rest:
            last = spans[-1] if spans else None
            if (
                last is None
                or not 0 <= start - last.stop <= WIDEST_GAP
                or start - last.start >= LONGEST_SPAN
            ):
                last = Span(start, start, deque())
                spans.append(last)
            if start > last.stop:
                last.views.append(memoryview(bytearray(start - last.stop)))
            part = rest[: LONGEST_SPAN - (start - last.start)]
            last.views.append(part)
            start, rest = start + len(part), rest[len(part) :]
            last.stop = start
    return spans
