"""Reading a sample of a series: the same numbers of the base and of every checkpoint, by ranges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from relex_merge.engine import kernels
from relex_merge.engine.memory_limits import memory_errors
from relex_merge.engine.plan import ModelPlan, TensorPlan
from relex_merge.engine.resources import Resources
from relex_merge.engine.rows import as_mergekit_would, non_finite
from relex_merge.engine.threads import single_threaded
from relex_merge.errors import RelexError
from relex_merge.trajectory.sampling.estimate import Sampled
from relex_merge.trajectory.sampling.plan import Cell, Piece
from relex_merge.trajectory.statistics import TensorStatistics
from relex_merge.weights.source import Range, Read

LARGEST_BATCH = 256 * 2**20  # bytes of all rows that are in memory at a time


def sampled_tensors(plan: ModelPlan) -> list[TensorPlan]:
    """Return the extrapolated tensors, in the order in which the last checkpoint's file has them.

    Neighbours in a file are read by one request.
    """
    place = {name: i for i, name in enumerate(plan.sources[-1].tensors)}
    extrapolated = [tensor for tensor in plan.tensors if tensor.parameters is not None]
    return sorted(extrapolated, key=lambda tensor: place[tensor.stored[-1]])


@dataclass(frozen=True)
class Cost:
    """What a sample takes.

    Attributes:
        requests: of the source that needs most.
        traffic: bytes that are read; more than it holds where a gap is cheaper than a request.
    """

    requests: int
    traffic: int


@dataclass(frozen=True)
class SampleReader:
    """Reads drawn cells of a series.

    Attributes:
        model: the series.
        tensors: those that the sample's plan names, in its order.
    """

    model: ModelPlan
    tensors: Sequence[TensorPlan]

    def cost(self, cells: Sequence[Cell]) -> Cost:
        """Return what reading ``cells`` takes."""
        requests, traffic = 0, 0
        for row, source in enumerate(self.model.sources):
            ranges = [self._range(piece, row) for cell in cells for piece in cell.pieces]
            takes = source.traffic(ranges)
            requests = max(requests, takes.requests)
            traffic += takes.nbytes
        return Cost(requests, traffic)

    def nbytes(self, cells: Sequence[Cell]) -> int:
        """Return the bytes of ``cells`` in all sources together."""
        return sum(self._nbytes(piece) for cell in cells for piece in cell.pieces)

    @memory_errors()
    def read(
        self,
        cells: Sequence[Cell],
        into: Sampled,
        resources: Resources,
        progress: Callable[[int], None],
    ) -> None:
        """Add the sums over ``cells`` to ``into``.

        Args:
            cells: drawn by the plan of ``into``.
            into: takes the sums.
            resources: cores and memory.
            progress: called with the bytes of each read, from any thread.

        Raises:
            RelexError: weights cannot be read, changed meanwhile, or hold NaN or Inf; tensor and
                checkpoint are named.
        """
        readers = max(source.parallel_reads for source in self.model.sources)
        with (
            kernels.ieee_float32(),
            single_threaded(),
            ThreadPoolExecutor(readers, "relex-read") as reading,
            ThreadPoolExecutor(resources.workers, "relex-compute") as computing,
        ):
            for batch in self._batches(cells, min(resources.budget // 2, LARGEST_BATCH)):
                rows = [
                    reading.submit(self._read_row, batch, row, progress)
                    for row in range(self.model.T + 1)
                ]
                try:
                    read = [row.result() for row in rows]
                except BaseException:
                    for source in self.model.sources:
                        source.stop()
                    reading.shutdown(wait=False, cancel_futures=True)
                    raise
                # Taken in one after the other, so that sums do not depend on the machine.
                for cell, sums in zip(
                    batch, computing.map(self._sums, batch, zip(*read, strict=True)), strict=True
                ):
                    into.add(cell, sums)
        for source in self.model.sources:
            source.check_unchanged()

    def _batches(self, cells: Sequence[Cell], most: int) -> Iterator[list[Cell]]:
        """Yield runs of cells whose rows take at most ``most`` bytes, or one cell each."""
        batch: list[Cell] = []
        held = 0
        for cell in cells:
            nbytes = self.nbytes([cell])
            if batch and held + nbytes > most:
                yield batch
                batch, held = [], 0
            batch.append(cell)
            held += nbytes
        if batch:
            yield batch

    def _read_row(
        self, batch: Sequence[Cell], row: int, progress: Callable[[int], None]
    ) -> list[list[torch.Tensor]]:
        """Read one source's numbers of some cells: for each cell its pieces (n,), as stored."""
        source = self.model.sources[row]
        found: list[list[torch.Tensor]] = []
        reads = []
        for cell in batch:
            found.append([])
            for piece in cell.pieces:
                wanted = self._range(piece, row)
                raw = torch.empty(wanted.stop - wanted.start, dtype=torch.uint8)
                reads.append(Read(wanted.name, wanted.start, raw.numpy().data))
                found[-1].append(raw.view(source.tensors[wanted.name].dtype))
        source.read(reads)
        progress(sum(len(read.into) for read in reads))
        return found

    def _sums(
        self, cell: Cell, read: Sequence[Sequence[torch.Tensor]]
    ) -> dict[int, TensorStatistics]:
        """Return the sums over each piece of a cell; ``read`` holds T + 1 lists of pieces."""
        found = {}
        for piece, vectors in zip(cell.pieces, zip(*read, strict=True), strict=True):
            tensor = self.tensors[piece.tensor]
            data = as_mergekit_would(list(vectors), tensor)
            dtype = kernels.compute_dtype(data, piece.stop - piece.start)
            sums = kernels.accumulate(data, dtype, self.model.last)
            if not np.isfinite(sums.gram).all():
                raise RelexError(non_finite(data, tensor, self.model))
            found[piece.tensor] = sums
        return found

    @cached_property
    def _widths(self) -> list[int]:
        """Bytes of one number of each tensor in all sources together."""
        rows = range(self.model.T + 1)
        return [
            sum(self.model.sources[row].tensors[t.stored[row]].dtype.itemsize for row in rows)
            for t in self.tensors
        ]

    def _nbytes(self, piece: Piece) -> int:
        return self._widths[piece.tensor] * (piece.stop - piece.start)

    def _range(self, piece: Piece, row: int) -> Range:
        name = self.tensors[piece.tensor].stored[row]
        itemsize = self.model.sources[row].tensors[name].dtype.itemsize
        return Range(name, piece.start * itemsize, piece.stop * itemsize)
