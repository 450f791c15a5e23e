"""From the drawn cells to G, and to the standard error of whatever follows from G.

The standard error comes from a delete-a-group jackknife (Kott, 2001): the cells are dealt to R
groups, and what is wanted is computed R times more, each time without the cells of one group, whose
strata make up for them. With the values x_r the variance is (R − 1)/R · Σ (x_r − x)². In a stratum
with fewer than R cells, leaving one out moves the sum by too much; it is moved by √(R (k − 1) /
((R − 1) k)) of that, k the number of its cells, which makes the variance of a sum unbiased. A
stratum of which a share f was read has 1 − f of the variance: none where all of it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.sampling.plan import GROUPS, Cell, SamplePlan
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics

QUANTILE = 2.13
"""Of Student's t with R − 1 degrees of freedom: standard errors of a 95 % interval."""


@dataclass
class _Sum:
    """What is known of the cells of one stratum and one group: how many, and sums by tensor."""

    cells: int = 0
    tensors: dict[int, TensorStatistics] = field(default_factory=dict)

    def add(self, parts: Mapping[int, TensorStatistics]) -> None:
        self.cells += 1
        for tensor, part in parts.items():
            had = self.tensors.get(tensor)
            self.tensors[tensor] = part if had is None else had + part


class Sampled:
    """A series of T checkpoints, known from the drawn cells of a plan.

    Args:
        plan: what was drawn.
        steps: (T,) ascending.
        fingerprint: of the weights.
    """

    def __init__(self, plan: SamplePlan, steps: Array, fingerprint: str = "") -> None:
        self.plan = plan
        self.steps = steps
        self._fingerprint = fingerprint
        self._sums: dict[int, dict[int, _Sum]] = {}

    def add(self, cell: Cell, parts: Mapping[int, TensorStatistics]) -> None:
        """Take in the sums over a cell: by tensor, over the numbers that lie in the cell."""
        groups = self._sums.setdefault(cell.stratum, {})
        groups.setdefault(cell.group, _Sum()).add(parts)

    def grow(self, plan: SamplePlan) -> None:
        """Go on with a larger plan; what it draws beyond the old one is to be added next."""
        self.plan = plan

    def statistics(self) -> SeriesStatistics:
        """Return the estimate: for each tensor in the sample, sums over all of its numbers.

        ``numel`` and ``moved`` are estimates too, so that their ratio is that of the sample.
        """
        return self._series(None)

    def replicates(self) -> Iterator[SeriesStatistics]:
        """Yield R estimates, each without the cells of one group."""
        for group in range(GROUPS):
            yield self._series(group)

    def _series(self, without: int | None) -> SeriesStatistics:
        weights = {
            (h, group): weight
            for h, groups in self._sums.items()
            for group, weight in self._weights(h, groups, without)
        }
        found: dict[int, list[tuple[float, TensorStatistics]]] = {}
        for (h, group), weight in weights.items():
            for tensor, part in self._sums[h][group].tensors.items():
                found.setdefault(tensor, []).append((weight, part))
        tensors = {self.plan.names[i]: _weighted(found[i]) for i in sorted(found)}
        return SeriesStatistics(self.steps, tensors, self._fingerprint, sampled=True)

    def _weights(
        self, h: int, groups: Mapping[int, _Sum], without: int | None
    ) -> Iterator[tuple[int, float]]:
        """Yield (group, weight of its cells) of stratum h, without the cells of one group."""
        stratum = self.plan.strata[h]
        n, k = stratum.count, len(groups)
        gone = groups[without].cells if without in groups and without is not None else 0
        if not gone or k < 2:
            yield from ((group, stratum.weight) for group in groups)
            return
        damping = np.sqrt((1 - n / stratum.cells) * GROUPS * (k - 1) / ((GROUPS - 1) * k))
        for group in groups:
            factor = 0.0 if group == without else n / (n - gone)
            yield group, stratum.weight * (1 + damping * (factor - 1))


def _weighted(parts: Sequence[tuple[float, TensorStatistics]]) -> TensorStatistics:
    gram = sum((weight * part.gram for weight, part in parts), np.zeros_like(parts[0][1].gram))
    return TensorStatistics(
        np.asarray(gram),
        sum(weight * part.base_squared_norm for weight, part in parts),
        round(sum(weight * part.moved for weight, part in parts)),
        max(round(sum(weight * part.numel for weight, part in parts)), 1),
    )


def standard_error(value: float | None, replicates: Sequence[float | None]) -> float | None:
    """Return the jackknife's standard error; None where the figure is undefined in any part.

    Args:
        value: from the whole sample.
        replicates: (R,) without one group each.
    """
    known = [x for x in replicates if x is not None]
    if value is None or len(known) < len(replicates):
        return None
    R = len(known)
    spread = float(np.square(np.asarray(known) - value).sum())
    return float(np.sqrt((R - 1) / R * spread))


def with_true_numels(statistics: SeriesStatistics, numels: Mapping[str, int]) -> SeriesStatistics:
    """Return the statistics with each tensor's own size, and as large a share of it moved."""
    tensors = {
        name: replace(t, numel=numels[name], moved=round(t.moved / max(t.numel, 1) * numels[name]))
        for name, t in statistics.tensors.items()
    }
    return replace(statistics, tensors=tensors)
