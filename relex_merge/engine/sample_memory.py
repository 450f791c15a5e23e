"""The sampled numbers of a growing series, kept in memory, and Gram matrices that grow by a row.

What is held of a checkpoint does not depend on the size of the model. A new checkpoint's numbers
come from whoever has them, such as a trainer with the live parameters, or by ranges from its files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from relex_merge.engine.plan import ModelPlan, TensorPlan
from relex_merge.errors import RelexError
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.sampling.plan import SamplePlan, draw_by_tensor
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics
from relex_merge.weights.source import Read, Source

Deltas = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Wanted:
    """The sampled numbers of one stored tensor.

    Attributes:
        name: as it is stored.
        shape: of the whole tensor.
        ranges: [start, stop) of the numbers, row-major, ascending.
    """

    name: str
    shape: tuple[int, ...]
    ranges: tuple[tuple[int, int], ...]

    @property
    def count(self) -> int:
        """How many numbers there are."""
        return sum(stop - start for start, stop in self.ranges)


@dataclass
class _Tensor:
    """What is held of one tensor.

    Attributes:
        weight: how many numbers each sampled one stands for.
        ranges: of the sampled numbers (m of them).
        base: θ₀ (m,).
        deltas: (capacity, m), a row for each checkpoint.
        gram: (rows, rows) of the rows, over the sample.
    """

    weight: float
    ranges: tuple[tuple[int, int], ...]
    base: Deltas
    deltas: Deltas
    gram: Array

    def append(self, delta: Deltas) -> None:
        rows = len(self.gram)
        if rows == len(self.deltas):
            more = np.empty((max(rows, 4), len(delta)), self.deltas.dtype)
            self.deltas = np.concatenate([self.deltas, more])
        self.deltas[rows] = delta
        new = (self.deltas[: rows + 1] @ self.deltas[rows]).astype(np.float64)
        self.gram = np.pad(self.gram, ((0, 1), (0, 1)))
        self.gram[rows], self.gram[:, rows] = new, new

    def keep(self, rows: Sequence[int]) -> None:
        self.deltas = self.deltas[list(rows)]
        self.gram = self.gram[np.ix_(rows, rows)]


class SampleMemory:
    """The sampled numbers of a series' checkpoints.

    Args:
        numbers: of a checkpoint that are held; a model with no more is held whole, and its Gram
            matrices are exact.
    """

    def __init__(self, numbers: int) -> None:
        self._numbers = numbers
        self._plan: SamplePlan | None = None
        self._tensors: list[_Tensor] = []
        self._base = ""
        self._rows: list[str] = []

    def wanted(self, model: ModelPlan, row: int) -> list[Wanted]:
        """Return what is to be known of a source, the base being row 0."""
        self._draw(model)
        return [
            Wanted(plan.stored[row], plan.out.shape, tensor.ranges)
            for plan, tensor in zip(_extrapolated(model), self._tensors, strict=True)
        ]

    def grow(
        self, model: ModelPlan, live: Mapping[str, torch.Tensor], fingerprint: str
    ) -> SeriesStatistics:
        """Return the statistics of a series, after taking in the checkpoints that are new.

        Args:
            model: the series.
            live: stored name → the wanted numbers of the last checkpoint (m,), as far as they need
                not be read.
            fingerprint: of the series' weights.

        Raises:
            RelexError: weights cannot be read, or hold NaN or Inf.
        """
        self._draw(model)
        base, *sources = model.sources
        keys = [_key(source) for source in sources]
        if _key(base) != self._base:
            self._rows = []
            self._hold_base(model)
        kept = [i for i, key in enumerate(self._rows) if key in keys]
        if len(kept) < len(self._rows):
            self._rows = [self._rows[i] for i in kept]
            for tensor in self._tensors:
                tensor.keep(kept)
        for row, key in enumerate(keys, start=1):
            if key not in self._rows:
                self._append(model, row, live if row == len(keys) else {})
                self._rows.append(key)
        for source in model.sources:
            source.check_unchanged()
        return self._statistics(model, [self._rows.index(key) for key in keys], fingerprint)

    def _draw(self, model: ModelPlan) -> None:
        """Draw the sample, or keep the one of the same tensors."""
        tensors = _extrapolated(model)
        names, numels = [t.name for t in tensors], [t.out.numel for t in tensors]
        if self._plan is not None and (list(self._plan.names), list(self._plan.numels)) == (
            names,
            numels,
        ):
            return
        self._plan = draw_by_tensor(names, numels, min(self._numbers, sum(numels)))
        ranges: list[list[tuple[int, int]]] = [[] for _ in names]
        for cell in self._plan.drawn:
            for piece in cell.pieces:
                ranges[piece.tensor].append((piece.start, piece.stop))
        nothing = np.zeros(0)
        self._tensors = [
            _Tensor(stratum.weight, tuple(own), nothing, nothing.reshape(0, 0), np.zeros((0, 0)))
            for stratum, own in zip(self._plan.strata, ranges, strict=True)
        ]
        self._rows, self._base = [], ""

    @property
    def _whole(self) -> bool:
        return self._plan is not None and self._plan.numbers == self._plan.total

    def _hold_base(self, model: ModelPlan) -> None:
        dtype = np.float64 if self._whole else np.float32
        for tensor, numbers in zip(self._tensors, self._read(model, 0, {}), strict=True):
            tensor.base = numbers.to(torch.float64).numpy().astype(dtype)
            tensor.deltas = np.empty((0, len(numbers)), dtype)
            tensor.gram = np.zeros((0, 0))
        self._base = _key(model.sources[0])

    def _append(self, model: ModelPlan, row: int, live: Mapping[str, torch.Tensor]) -> None:
        found = []
        plans = _extrapolated(model)
        numbers = self._read(model, row, live)
        for plan, tensor, own in zip(plans, self._tensors, numbers, strict=True):
            delta = own.to(torch.float64).numpy() - tensor.base
            if not np.isfinite(delta).all():
                raise RelexError(
                    f"{model.sources[row].label}: {plan.name} holds NaN or Inf; leave that "
                    "checkpoint out"
                )
            found.append(delta)
        for tensor, delta in zip(self._tensors, found, strict=True):
            tensor.append(delta)

    def _read(
        self, model: ModelPlan, row: int, live: Mapping[str, torch.Tensor]
    ) -> list[torch.Tensor]:
        """Return the wanted numbers of one source, (m,) for each tensor, as they are stored."""
        source = model.sources[row]
        found, reads = [], []
        for wanted in self.wanted(model, row):
            dtype = source.tensors[wanted.name].dtype
            given = live.get(wanted.name)
            if given is not None:
                found.append(given.to(dtype))
                continue
            raw = torch.empty(wanted.count * dtype.itemsize, dtype=torch.uint8)
            view, done = raw.numpy().data, 0
            for start, stop in wanted.ranges:
                size = (stop - start) * dtype.itemsize
                reads.append(Read(wanted.name, start * dtype.itemsize, view[done : done + size]))
                done += size
            found.append(raw.view(dtype))
        source.read(reads)
        return found

    def _statistics(
        self, model: ModelPlan, rows: Sequence[int], fingerprint: str
    ) -> SeriesStatistics:
        tensors = {}
        for plan, tensor in zip(_extrapolated(model), self._tensors, strict=True):
            moved = np.count_nonzero(tensor.deltas[rows[model.last]]) / max(len(tensor.base), 1)
            base = tensor.base.astype(np.float64)
            tensors[plan.name] = TensorStatistics(
                tensor.weight * tensor.gram[np.ix_(rows, rows)],
                tensor.weight * float(base @ base),
                round(moved * plan.out.numel),
                plan.out.numel,
            )
        return SeriesStatistics(model.steps, tensors, fingerprint, sampled=not self._whole)


def _extrapolated(model: ModelPlan) -> list[TensorPlan]:
    return [t for t in model.tensors if t.parameters is not None and t.out.numel]


def _key(source: Source) -> str:
    return json.dumps(source.fingerprint())
