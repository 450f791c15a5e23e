"""Which numbers of a model are read: a rule of sizes and a seed alone, with no look at a weight.

The tensors are laid end to end on a *line*. It is cut into *strata*, each stratum into *cells* of
neighbouring numbers, because a range is read as one; and in each stratum some cells are drawn
without replacement, every cell with the same chance. So a sum over the drawn cells of a stratum,
times its number of cells over that of the drawn ones, is an unbiased estimate of the sum over the
whole stratum (Horvitz and Thompson, 1952).

There are two ways to cut the line. By tensor, where a read costs little: each tensor is a stratum
of its own, and small ones are read whole. By request, where each read is a round trip over a
network: as many strata of equal length as the requests allow, whatever tensors lie in them. Then
not every tensor is in the sample, but sums over the model, its layers and its kinds of module stay
unbiased.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

SEED = 0
GROUPS = 16
"""Parts of a sample that a jackknife leaves out in turn."""
CELLS = 32  # of a tensor at least, where its share is that large
REMOTE_CELLS = 4  # of every tensor, where each of them is a request
SMALLEST_CELL = 64  # numbers
LARGEST_CELL = 4096  # numbers of a cell where a read costs little
WHOLE_CELL = 2**18  # numbers of a cell where all are read
FLOOR = 16384  # numbers of a tensor up to which it gets more than its share
REQUESTS = 32
"""Requests for a checkpoint at ``REQUESTS_SHARE``; headers and indexes take a few more."""
REQUESTS_SHARE = 0.005
PAIR = 2  # cells drawn in a stratum that is made for requests

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stratum:
    """Numbers [start, stop) of the line, of which ``count`` cells of ``cell`` numbers are drawn.

    The last cell may be shorter.
    """

    start: int
    stop: int
    cell: int
    count: int

    @property
    def cells(self) -> int:
        """How many cells there are."""
        return -(-(self.stop - self.start) // self.cell)

    @property
    def weight(self) -> float:
        """How many cells one drawn cell stands for."""
        return self.cells / self.count

    def drawn(self, seed: Sequence[int]) -> Indices:
        """Return the drawn cells (count,); those of a smaller ``count`` come first among them."""
        keys = np.random.PCG64(np.random.SeedSequence(list(seed))).random_raw(self.cells)
        order = np.argsort(np.asarray(keys), kind="stable")
        return np.asarray(order[: self.count], dtype=np.int64)


@dataclass(frozen=True)
class Piece:
    """Numbers [start, stop) of tensor ``tensor`` of a plan."""

    tensor: int
    start: int
    stop: int


@dataclass(frozen=True)
class Cell:
    """A drawn cell: its stratum, the group that leaves it out, and the tensors it lies in."""

    stratum: int
    group: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Held:
    """What a sample holds of a tensor, or of several: numbers, blocks, and whether that is all."""

    numbers: int = 0
    blocks: int = 0
    of: int = 0

    @property
    def whole(self) -> bool:
        """Whether every number was read, so that there is nothing to estimate."""
        return self.numbers == self.of

    def __add__(self, other: Held) -> Held:
        return Held(self.numbers + other.numbers, self.blocks + other.blocks, self.of + other.of)


@dataclass(frozen=True)
class SamplePlan:
    """The numbers of a model that are read.

    Attributes:
        names: of the tensors, in the order of the line.
        numels: numbers of each.
        strata: they cover the line.
        seed: of what is drawn.
    """

    names: tuple[str, ...]
    numels: tuple[int, ...]
    strata: tuple[Stratum, ...]
    seed: int = SEED

    @cached_property
    def _ends(self) -> Indices:
        return np.cumsum(self.numels, dtype=np.int64)

    @property
    def total(self) -> int:
        """Numbers of all tensors."""
        return sum(self.numels)

    @cached_property
    def drawn(self) -> list[Cell]:
        """All drawn cells, stratum by stratum."""
        return list(self.beyond(None))

    @property
    def numbers(self) -> int:
        """Numbers in the sample."""
        return sum(piece.stop - piece.start for cell in self.drawn for piece in cell.pieces)

    @property
    def share(self) -> float:
        """Of the numbers, how many are in the sample."""
        return self.numbers / max(self.total, 1)

    @cached_property
    def held(self) -> dict[str, Held]:
        """What is in the sample, by tensor; tensors outside it are there too, with nothing."""
        found = [Held(of=numel) for numel in self.numels]
        for cell in self.drawn:
            for piece in cell.pieces:
                found[piece.tensor] += Held(piece.stop - piece.start, 1)
        return dict(zip(self.names, found, strict=True))

    def beyond(self, smaller: SamplePlan | None) -> Iterator[Cell]:
        """Yield the drawn cells that ``smaller``, of which this plan is the :meth:`doubled`, lacks.

        The cells of a stratum come in the order of the line.
        """
        for h, stratum in enumerate(self.strata):
            had = 0 if smaller is None else smaller.strata[h].count
            drawn = stratum.drawn((self.seed, h))
            for rank in sorted(range(had, stratum.count), key=lambda r: int(drawn[r])):
                start = stratum.start + int(drawn[rank]) * stratum.cell
                stop = min(start + stratum.cell, stratum.stop)
                yield Cell(h, (PAIR * h + rank) % GROUPS, tuple(self._pieces(start, stop)))

    def doubled(self, most: float) -> SamplePlan:
        """Return a plan with twice as many cells, this plan's among them, up to a share ``most``.

        Where twice as many are more than that, each stratum grows by less.
        """
        factor = min(2.0, most / self.share) if self.share else 2.0
        strata = tuple(
            replace(s, count=min(s.cells, max(s.count, int(s.count * factor)))) for s in self.strata
        )
        return replace(self, strata=strata)

    def _pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Yield the parts of tensors that lie in [start, stop) of the line."""
        tensor = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            end = int(self._ends[tensor])
            begin = end - self.numels[tensor]
            last = min(end, stop)
            if last > start:
                yield Piece(tensor, start - begin, last - begin)
            start, tensor = last, tensor + 1


def draw_by_tensor(
    names: Sequence[str],
    numels: Sequence[int],
    wanted: int,
    *,
    seed: int = SEED,
    cells: int | None = None,
) -> SamplePlan:
    """Draw about ``wanted`` numbers, from every tensor some, from small ones all.

    Args:
        names: of the tensors.
        numels: numbers of each.
        wanted: numbers of all together.
        seed: of what is drawn.
        cells: of a tensor that is not read whole; by default many small ones.
    """
    d = np.asarray(numels, dtype=np.float64)
    m = _allocation(d, wanted)
    strata, start = [], 0
    for numel, share in zip(numels, m, strict=True):
        if not numel:
            continue
        if share >= numel:
            cell, count = WHOLE_CELL, -(-numel // WHOLE_CELL)
        else:
            largest = LARGEST_CELL if cells is None else numel
            cell = int(np.clip(share // (cells or CELLS), SMALLEST_CELL, largest))
            count = int(np.clip(round(share / cell), 1, -(-numel // cell)))
        strata.append(Stratum(start, start + numel, cell, count))
        start += numel
    return SamplePlan(tuple(names), tuple(numels), tuple(strata), seed)


def draw_by_request(
    names: Sequence[str],
    numels: Sequence[int],
    wanted: int,
    *,
    seed: int = SEED,
    requests: int | None = None,
) -> SamplePlan:
    """Draw about ``wanted`` numbers in few ranges of the line.

    Args:
        names: of the tensors, in the order in which they lie in a file.
        numels: numbers of each.
        wanted: numbers of all together.
        seed: of what is drawn.
        requests: ranges; by default ``REQUESTS``, more for larger shares.
    """
    total = sum(numels)
    if requests is None:
        requests = round(REQUESTS * max(1.0, wanted / max(total, 1) / REQUESTS_SHARE))
    count = max(1, min(requests // PAIR, wanted // PAIR // SMALLEST_CELL))
    cell = max(-(-wanted // (count * PAIR)), 1)
    edges = [total * h // count for h in range(count + 1)]
    strata = []
    for start, stop in pairwise(edges):
        if stop > start:
            strata.append(Stratum(start, stop, cell, min(PAIR, -(-(stop - start) // cell))))
    return SamplePlan(tuple(names), tuple(numels), tuple(strata), seed)


def _allocation(d: npt.NDArray[np.float64], wanted: int) -> npt.NDArray[np.float64]:
    """Return how many numbers of each tensor (N,) are read, ``wanted`` together.

    A share f of d, a floor at least, and all at most; f is found by bisection.
    """
    floor = min(FLOOR, wanted / (2 * max(len(d), 1)))
    low, high = 0.0, 1.0
    for _ in range(60):
        f = (low + high) / 2
        if np.minimum(d, np.maximum(f * d, floor)).sum() < wanted:
            low = f
        else:
            high = f
    return np.asarray(np.minimum(d, np.maximum(high * d, floor)))
