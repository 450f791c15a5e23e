"""The two witnesses for a candidate: its backtest at the ratio, and the law of all backtests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from relex_merge.trajectory.backtests.assessment import stacked
from relex_merge.trajectory.backtests.backtest import (
    FEWEST_FITTED,
    Backtests,
    backtests,
    before_cut,
    plan,
)
from relex_merge.trajectory.backtests.compared import named
from relex_merge.trajectory.backtests.error_law import Forecast, forecast
from relex_merge.trajectory.backtests.results import Candidate, Trial
from relex_merge.trajectory.backtests.verdict import CLEAR
from relex_merge.trajectory.statistics import SeriesStatistics

NEAR = 1.25  # factor between the ratios of backtests that are shown as evidence
_FLOOR = (
    1e-12  # of a squared error, relative to standing still: an exact prediction has a logarithm
)


@dataclass(frozen=True)
class Tried:
    """The backtests of some tensors together, and the law of each candidate."""

    tests: Backtests
    laws: Mapping[str, Forecast | None]

    @property
    def widest(self) -> float | None:
        """The furthest ratio that was backtested."""
        return max((law.widest for law in self.laws.values() if law is not None), default=None)


def run_backtests(
    statistics: SeriesStatistics,
    ratio: float | None,
    names: Sequence[str],
    rank: int,
    window: int | None,
) -> Backtests:
    """Those of every tensor and predictor, at ``ratio`` too."""
    steps = statistics.steps
    beyond = ratio if ratio is not None and ratio > 1 else None
    continuations = [named(name, rank, window) for name in names]
    return backtests(stacked(statistics), steps, plan(steps, beyond), continuations)


def together(tests: Backtests, names: Sequence[str], rows: list[int]) -> Tried:
    """The tensors ``rows`` laid end to end."""
    still = tests.still[rows].sum(axis=0, keepdims=True)
    errors = {
        name: np.maximum(tests.errors[name][rows].sum(axis=0, keepdims=True), _FLOOR * still)
        for name in names
    }
    pooled = replace(tests, still=still, errors=errors)
    return Tried(pooled, {name: forecast(pooled, tests.steps, name) for name in names})


def witnesses(tried: Tried, names: Sequence[str], ratio: float) -> tuple[Candidate, ...]:
    """What speaks for each predictor at ``ratio``."""
    return tuple(_candidate(tried, name, ratio) for name in names)


def _candidate(tried: Tried, name: str, ratio: float) -> Candidate:
    tests, law = tried.tests, tried.laws[name]
    told = law is not None and ratio <= law.widest * 1.05
    low, expected, high = (
        law.skill(ratio, z) if law is not None and told else None for z in (-CLEAR, 0, CLEAR)
    )
    near = [
        p
        for p in range(len(tests.target))
        if max(tests.ratio[p] / ratio, ratio / tests.ratio[p]) <= NEAR
        and tests.fitted[p] >= FEWEST_FITTED
        and np.isfinite(tests.pooled(name, p, [0]))
    ]
    trials = tuple(
        Trial(
            float(tests.steps[tests.fitted[p] - 1]),
            float(tests.steps[tests.target[p]]),
            tests.pooled(name, p, [0]),
        )
        for p in near
    )
    return Candidate(name, expected, low, high, _same_ratio(tests, name, ratio), trials)


def _same_ratio(tests: Backtests, name: str, ratio: float) -> float | None:
    """Skill of predicting the last checkpoint from the latest backtested cut at least as far."""
    cut = before_cut(tests.steps, ratio)
    reach = tests.last()
    usable = [p for p in reach if FEWEST_FITTED <= tests.fitted[p] <= cut and tests.still[0, p] > 0]
    if not usable:
        return None
    skill = tests.pooled(name, max(usable, key=lambda p: tests.fitted[p]), [0])
    return skill if np.isfinite(skill) else None
