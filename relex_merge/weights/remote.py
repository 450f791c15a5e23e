"""Weights read from the Hub or a place while they are needed: ranges, and no copy on the disk.

Headers come first; after that every byte of a tensor is asked for once. A row of a piece is many
small ranges, most of them neighbours in their file, so that a few requests of megabytes serve it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from relex_merge.checkpoints.files import require_weights
from relex_merge.errors import RelexError
from relex_merge.hub.download import Pin
from relex_merge.hub.ranges import REQUESTS, Connections, RemoteFile, Span
from relex_merge.places.pin import PlaceFile, PlacePin
from relex_merge.places.ranges import Transfers
from relex_merge.weights.files import Extent
from relex_merge.weights.header import (
    LENGTH_BYTES,
    Entry,
    HeaderError,
    header_length,
    parse_header,
)
from relex_merge.weights.place_files import check_place
from relex_merge.weights.shards import tensors_of
from relex_merge.weights.source import Range, Read, Source, TensorInfo, Traffic
from relex_merge.weights.spans import LONGEST_SPAN, WIDEST_GAP, coalesce


class NamedFile(Protocol):
    """A file that is read in ranges."""

    @property
    def name(self) -> str:
        """What to call it in messages."""


File = TypeVar("File", bound=NamedFile)


Asked_contra = TypeVar("Asked_contra", bound=NamedFile, contravariant=True)


class Ranges(Protocol[Asked_contra]):
    """Where byte ranges of files come from: the requests of one run."""

    def size(self, file: Asked_contra) -> int:
        """Return the bytes of a file."""

    def read(self, file: Asked_contra, spans: Sequence[Span]) -> None:
        """Fill all spans of a file."""

    def stop(self) -> RelexError:
        """Let all requests end soon."""


class RemoteSource(Source, Generic[File]):
    """The safetensors files of one model, read by ranges.

    Args:
        files: name → file, of the whole folder.
        folder: holds the index of shards, where the model has one.
        label: names the model in messages.
        ranges: shared by all sources of a run.

    Raises:
        RelexError: something is not whole.
    """

    parallel_reads = REQUESTS
    remote = True

    def __init__(
        self, files: Mapping[str, File], folder: Path, label: str, ranges: Ranges[File]
    ) -> None:
        self.label = label
        self._ranges = ranges
        self._extents: dict[str, Extent] = {}
        found = require_weights(files, folder, label)
        self._files = {name: files[name] for name in found.files}
        held = {name: self._entries(file) for name, file in self._files.items()}
        tensors: dict[str, TensorInfo] = {}
        for tensor, name in tensors_of(held, found.places, label):
            entry = held[name][tensor]
            tensors[tensor] = entry.info
            self._extents[tensor] = Extent(name, entry.start)
        self.tensors = tensors

    def _entries(self, file: File) -> dict[str, Entry]:
        size = self._ranges.size(file)
        try:
            length = header_length(self._bytes(file, 0, min(LENGTH_BYTES, size)), size)
            return parse_header(self._bytes(file, LENGTH_BYTES, length), size, self.label)
        except HeaderError as error:
            raise RelexError(
                f"{file.name} {error}; its upload is not complete: leave that checkpoint out"
            ) from error

    def _bytes(self, file: File, start: int, count: int) -> bytes:
        data = bytearray(count)
        self._ranges.read(file, coalesce([(start, memoryview(data))]))
        return bytes(data)

    def read(self, reads: Sequence[Read]) -> None:
        """Ask for neighbouring ranges together; the bytes go straight to the buffers."""
        wanted: dict[str, list[tuple[int, memoryview]]] = {}
        for asked in reads:
            extent = self._extents[asked.name]
            wanted.setdefault(extent.file, []).append((extent.offset + asked.start, asked.into))
        for name, ranges in wanted.items():
            self._ranges.read(self._files[name], coalesce(ranges))

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

    @abstractmethod
    def fingerprint(self) -> list[Any]:
        """Return what the model was pinned to."""

    def stop(self) -> None:
        """Let all reads of the run end soon."""
        self._ranges.stop()


class HubSource(RemoteSource[RemoteFile]):
    """The safetensors files of one Hub commit, read by HTTP ranges."""

    def __init__(self, pin: Pin, folder: Path, label: str, connections: Connections) -> None:
        self._pin = pin
        files = {name: RemoteFile(pin, name, label) for name in pin.files}
        super().__init__(files, folder, label, connections)

    def fingerprint(self) -> list[Any]:
        """Return repo and commit, and the folder in it."""
        return [*self._pin.mark]


class PlaceSource(RemoteSource[PlaceFile]):
    """The safetensors files of a folder in a place, in the state that they were listed in."""

    def __init__(self, pin: PlacePin, folder: Path, label: str, transfers: Transfers) -> None:
        self._pin = pin
        files = {name: pin.file(name) for name in pin.files}
        super().__init__(files, folder, label, transfers)

    def fingerprint(self) -> list[Any]:
        """Return the address and the state of every file."""
        return [*self._pin.mark]

    def check_unchanged(self) -> None:
        """Raise SourceChangedError when a weight file is not as it was when the run began."""
        check_place(self._pin, tuple(self._files))
