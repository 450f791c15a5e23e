"""Everything that is computed about one series before any of it is put into words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from relex_merge.errors import RelexError
from relex_merge.trajectory.backtests.backtest import (
    Backtests,
    Cut,
    Indices,
    backtests,
    plan,
    stacked,
)
from relex_merge.trajectory.backtests.compared import baselines, method, others
from relex_merge.trajectory.backtests.error_law import ErrorLaw, fit_error_law
from relex_merge.trajectory.backtests.gaps import Attempt, insist
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.predictors import Predictor
from relex_merge.trajectory.predictors.history import FEWEST_FITTED, before_cut
from relex_merge.trajectory.statistics import SeriesStatistics


@dataclass(frozen=True)
class Assessment:
    """What backtests make of one series of N tensors and T observed checkpoints.

    Attributes:
        names: Of the N tensors.
        steps: (T,) ascending.
        grams: G (N, T, T).
        base_squared_norms: (N,) ‖θ₀‖²; NaN where unknown.
        parameters: One for each tensor.
        common: The most frequent of them, used for sums over tensors.
        target: The step asked for.
        ratio: target / s_T; None where nothing is extrapolated.
        compared: What was backtested: the recipe's own predictor first, then the others.
        tests: Backtests on the observed checkpoints.
        same_ratio: Which of them is cut at the user's own ratio and predicts the last checkpoint;
            None where too few checkpoints lie before that cut, by the rule for every backtest that
            counts: at least FEWEST_FITTED.
        held_out: Fit on all observed checkpoints, predict those beyond.
        law: What the backtests say about distance.
    """

    names: list[str]
    steps: Array
    grams: Array
    base_squared_norms: Array
    parameters: list[Parameters]
    common: Parameters
    target: float
    ratio: float | None
    compared: tuple[Predictor, ...]
    tests: Backtests
    same_ratio: int | None
    held_out: Backtests | None
    law: ErrorLaw | None

    @cached_property
    def row(self) -> dict[str, int]:
        """Name → its row."""
        return {name: i for i, name in enumerate(self.names)}


def assess(
    statistics: SeriesStatistics,
    parameters: Mapping[str, Parameters] | Parameters,
    target: float,
    holdout: SeriesStatistics | None,
    attempt: Attempt = insist,
    *,
    alone: bool = False,
) -> Assessment:
    """Run every backtest of every tensor, and predict the held-out checkpoints if there are any.

    Args:
        statistics: Of the observed checkpoints.
        parameters: For all tensors, or one for each name.
        target: The step asked for.
        holdout: Statistics of the same tensors over the observed checkpoints and later ones.
        attempt: What to do about a part whose arithmetic fails; unless told otherwise the exception
            goes on.
        alone: Whether only the recipe's own predictor is tried, not the others that a report
            compares it with.

    Raises:
        RelexError: There is no tensor, or a held-out step is not beyond the observed ones.
    """
    names, steps = list(statistics.tensors), statistics.steps
    if not names:
        raise RelexError("the recipe extrapolates no tensor, so there is nothing to report on")
    own = [parameters if isinstance(parameters, Parameters) else parameters[n] for n in names]
    common = Counter(own).most_common(1)[0][0]
    beyond = common.mode == "extrapolate" and target > steps[-1] > 0
    ratio = float(target / steps[-1]) if beyond else None
    rank = min(common.rank, len(steps))
    compared: tuple[Predictor, ...] = (method(own),)
    if not alone:
        compared += (*baselines(min(max(rank, 3), len(steps))), *others(rank))
    grams = stacked(statistics)
    tests = backtests(grams, steps, plan(steps, ratio), compared, attempt)
    return Assessment(
        names=names,
        steps=steps,
        grams=grams,
        base_squared_norms=np.asarray([t.base_squared_norm for t in statistics.tensors.values()]),
        parameters=own,
        common=common,
        target=target,
        ratio=ratio,
        compared=compared,
        tests=tests,
        same_ratio=_same_ratio(tests, steps, ratio, compared[0].needs),
        held_out=None if holdout is None else _held_out(statistics, holdout, compared, attempt),
        law=attempt("backtests.forecast", lambda: fit_error_law(tests), None),
    )


def _same_ratio(tests: Backtests, steps: Array, ratio: float | None, needs: int) -> int | None:
    if ratio is None:
        return None
    cut = before_cut(steps, ratio)
    if not max(needs, FEWEST_FITTED) <= cut < len(steps):
        return None
    return int(np.flatnonzero((tests.fitted == cut) & (tests.target == len(steps) - 1))[0])


def _held_out(
    observed: SeriesStatistics,
    everything: SeriesStatistics,
    compared: Sequence[Predictor],
    attempt: Attempt,
) -> Backtests | None:
    T = len(observed.steps)
    if not np.array_equal(everything.steps[:T], observed.steps):
        early = sorted(set(everything.steps[everything.steps < observed.steps[-1]]))
        culprit = next(s for s in early if s not in observed.steps)
        raise RelexError(
            f"held-out step {culprit:g} lies within the observed steps (last: "
            f"{observed.steps[-1]:g}); hold out later checkpoints only"
        )
    targets: Indices = np.arange(T, len(everything.steps))
    if not len(targets):
        return None
    return backtests(stacked(everything), everything.steps, [Cut(T, targets)], compared, attempt)
