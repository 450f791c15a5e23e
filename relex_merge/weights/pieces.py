"""Tensors that lie in pieces: boxes of them in several files, read as if they lay in one.

A piece holds the numbers of a box of the tensor, row by row. Cut along the first dimension it is
one run of the tensor's bytes; cut along another one it is a run for each row.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import numpy as np

from relex_merge.weights.files import DiskFiles
from relex_merge.weights.place_files import PlaceFiles
from relex_merge.weights.source import Read, Source, TensorInfo


class CoverError(ValueError):
    """Pieces do not make up their tensor; the message says where."""


class Box(NamedTuple):
    """A box of a tensor.

    Attributes:
        offsets: of its first entry along each dimension.
        sizes: along each dimension.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def numel(self) -> int:
        """How many numbers are in it."""
        return math.prod(self.sizes)

    def meets(self, other: Box) -> bool:
        """Whether two boxes have an entry in common."""
        return all(
            a < b + n and b < a + m
            for a, m, b, n in zip(self.offsets, self.sizes, other.offsets, other.sizes, strict=True)
        )


class Piece(NamedTuple):
    """A box of a tensor in a file.

    Attributes:
        box: which entries.
        file: the file.
        start: offset in bytes of the first of them; None where it is found out when it is read.
        key: tells pieces apart that a subclass looks for.
    """

    box: Box
    file: str
    start: int | None
    key: Any = None


@dataclass(frozen=True)
class Pieced:
    """A tensor and its pieces, in the order of their first entries.

    Attributes:
        info: dtype and shape.
        pieces: which cover it, without overlap.
    """

    info: TensorInfo
    pieces: tuple[Piece, ...]

    @staticmethod
    def of(info: TensorInfo, pieces: Sequence[Piece]) -> Pieced:
        """Put pieces together; of several copies of a box the first is taken.

        Raises:
            CoverError: they leave something out, or overlap.
        """
        order = _order(info.shape, tuple([piece.box for piece in pieces]))
        return Pieced(info, tuple([pieces[number] for number in order]))

    @cached_property
    def runs(self) -> tuple[_Runs, ...]:
        """The runs of each piece."""
        return tuple(_Runs.of(piece.box, self.info.shape) for piece in self.pieces)

    @cached_property
    def in_order(self) -> list[int] | None:
        """First number of each piece, where each is one run of the tensor; else None."""
        if any(runs.count > 1 for runs in self.runs):
            return None
        return [runs.first for runs in self.runs]


@dataclass(frozen=True)
class _Runs:
    """A box as runs of neighbouring numbers of its tensor.

    Attributes:
        first: index of its first number in the tensor.
        length: numbers in a run.
        outer: sizes of the box along the dimensions before the one that is cut last.
        strides: numbers of the tensor from one entry to the next along those.
    """

    first: int
    length: int
    outer: tuple[int, ...]
    strides: tuple[int, ...]

    @staticmethod
    def of(box: Box, shape: tuple[int, ...]) -> _Runs:
        strides = [1] * len(shape)
        for dim in range(len(shape) - 2, -1, -1):
            strides[dim] = strides[dim + 1] * shape[dim + 1]
        first = sum(o * s for o, s in zip(box.offsets, strides, strict=True))
        cut = max((d for d, n in enumerate(box.sizes) if n != shape[d]), default=0)
        length = math.prod(box.sizes[cut:])
        outer, steps = list(box.sizes[:cut]), list(strides[:cut])
        if all(n == 1 for n in outer):
            outer, steps = [], []
        return _Runs(first, length, tuple(outer), tuple(steps))

    @property
    def count(self) -> int:
        """How many runs there are."""
        return math.prod(self.outer)

    def starts(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """First number of each run in the tensor, ascending."""
        index = np.zeros(1, dtype=np.int64) + self.first
        for size, stride in zip(self.outer, self.strides, strict=True):
            index = (index[:, None] + np.arange(size, dtype=np.int64) * stride).reshape(-1)
        return index


class PiecedSource(Source):
    """Tensors in pieces in some files; a subclass opens the files and says which.

    Args:
        files: on this disk or in a place.
        label: names the model in messages.
    """

    def __init__(self, files: DiskFiles | PlaceFiles, label: str) -> None:
        self.label = label
        self._files = files
        self.remote = files.remote
        self.parallel_reads = files.parallel_reads
        self._pieced: Mapping[str, Pieced] = {}

    @abstractmethod
    def _start(self, piece: Piece) -> int:
        """Return the offset in bytes at which a piece begins in its file."""

    def fingerprint(self) -> list[Any]:
        """Return the label and, for every file, its state when it was opened."""
        return [self.label, *self._files.fingerprint()]

    def check_unchanged(self) -> None:
        """Raise SourceChangedError when a file is in another state than when it was opened."""
        self._files.check_unchanged()

    def stop(self) -> None:
        """Let reads from a place end soon."""
        self._files.stop()

    def read(self, reads: Sequence[Read]) -> None:
        """Fill every buffer, the pieces of a file together.

        Raises:
            SourceChangedError: a file is gone, or not in the state that it was opened in.
        """
        wanted: dict[str, list[tuple[int, memoryview]]] = {}
        scattered: list[_Rows] = []
        for asked in reads:
            pieced = self._pieced[asked.name]
            if pieced.in_order is None:
                rows = list(_in_rows(asked, pieced))
                parts = [one.part for one in rows]
                scattered += rows
            else:
                parts = list(_in_one_run(asked, pieced))
            for piece, offset, into in parts:
                wanted.setdefault(piece.file, []).append((self._start(piece) + offset, into))
        self._files.fill(wanted)
        for one in scattered:
            one.scatter()


@dataclass(frozen=True)
class _Rows:
    """Neighbouring runs of a piece, which lie apart in their tensor.

    Attributes:
        asked: what is wanted of the tensor.
        part: the piece, an offset in bytes in it, and a buffer that takes the runs.
        starts: offset in bytes of each run in the tensor.
        length: bytes of a run.
    """

    asked: Read
    part: tuple[Piece, int, memoryview]
    starts: list[int]
    length: int

    def scatter(self) -> None:
        """Put what is wanted of the runs into its places."""
        begin, end = self.asked.start, self.asked.start + len(self.asked.into)
        raw = self.part[2]
        for number, start in enumerate(self.starts):
            first, last = max(start, begin), min(start + self.length, end)
            at = number * self.length + first - start
            self.asked.into[first - begin : last - begin] = raw[at : at + last - first]


def _in_rows(asked: Read, pieced: Pieced) -> Iterator[_Rows]:
    """Yield what a read wants of each piece of a tensor whose rows are cut."""
    item = pieced.info.dtype.itemsize
    begin, end = asked.start, asked.start + len(asked.into)
    for piece, runs in zip(pieced.pieces, pieced.runs, strict=True):
        starts = runs.starts() * item
        length = runs.length * item
        low = int(np.searchsorted(starts + length, begin, side="right"))
        high = int(np.searchsorted(starts, end, side="left"))
        if low < high:
            raw = memoryview(bytearray((high - low) * length))
            yield _Rows(asked, (piece, low * length, raw), starts[low:high].tolist(), length)


def _in_one_run(asked: Read, pieced: Pieced) -> Iterator[tuple[Piece, int, memoryview]]:
    """Yield the pieces that a read touches, with the offset in bytes in each, and its buffer."""
    item = pieced.info.dtype.itemsize
    firsts = pieced.in_order
    assert firsts is not None
    number = max(0, bisect_right(firsts, asked.start // item) - 1)
    at, into = asked.start, asked.into
    while len(into):
        runs = pieced.runs[number]
        offset = at - runs.first * item
        part = into[: runs.length * item - offset]
        yield pieced.pieces[number], offset, part
        at, into = at + len(part), into[len(part) :]
        number += 1


@lru_cache(maxsize=4096)
def _order(shape: tuple[int, ...], boxes: tuple[Box, ...]) -> tuple[int, ...]:
    """Return which of several boxes cover a tensor, in order; kept, since layers are alike.

    Raises:
        CoverError: they do not.
    """
    first: dict[Box, int] = {}
    for number, box in enumerate(boxes):
        if box.numel:
            first.setdefault(box, number)
    _check_cover(shape, list(first))
    return tuple(first[box] for box in sorted(first))


def _check_cover(shape: tuple[int, ...], boxes: Sequence[Box]) -> None:
    """Raise CoverError unless boxes cover a tensor of a shape without overlap."""
    for box in boxes:
        if len(box.sizes) != len(shape) or any(
            o < 0 or o + n > length
            for o, n, length in zip(box.offsets, box.sizes, shape, strict=True)
        ):
            raise CoverError(f"a part of {list(box.sizes)} at {list(box.offsets)} lies outside")
    total, held = math.prod(shape), sum(box.numel for box in boxes)
    if held < total:
        raise CoverError(f"its parts have {held:,} of {total:,} numbers")
    ordered = sorted(boxes)
    # Cut along one dimension, neighbours are all that can overlap.
    cut = [d for d in range(len(shape)) if any(b.sizes[d] != shape[d] for b in boxes)]
    pairs = pairwise(ordered) if len(cut) <= 1 else combinations(ordered, 2)
    if held > total or any(a.meets(b) for a, b in pairs):
        raise CoverError("its parts overlap")
