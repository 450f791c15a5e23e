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
    Indices,
    Trial,
    backtests,
    before_cut,
    plan,
)
from relex_merge.trajectory.backtests.compared import Continuation, baselines, method, others
from relex_merge.trajectory.backtests.error_law import Forecast, forecast
from relex_merge.trajectory.backtests.gaps import Attempt, insist
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.statistics import SeriesStatistics


@dataclass(frozen=True)
class Evaluation:
    """One series of N tensors and T observed checkpoints, tried out.

    parameters: one per tensor; common: the most frequent, used for sums over tensors.
    target: step asked for; ratio: target / s_T, None where nothing is extrapolated.
    tests: backtests on the observed checkpoints. same_ratio: which of them is cut at the user's own
    ratio and predicts the last checkpoint, None where too few checkpoints lie before that cut.
    held_out: fit on all observed, predict those beyond. law: what the backtests say about distance.
    """

    names: list[str]
    steps: Array
    grams: Array
    parameters: list[Parameters]
    common: Parameters
    target: float
    ratio: float | None
    continuations: tuple[Continuation, ...]
    tests: Backtests
    same_ratio: int | None
    held_out: Backtests | None
    law: Forecast | None

    @cached_property
    def row(self) -> dict[str, int]:
        """name → its row."""
        return {name: i for i, name in enumerate(self.names)}


def stacked(statistics: SeriesStatistics) -> Array:
    """(N, T, T): the Gram matrices of all tensors, in their order."""
    T = len(statistics.steps)
    grams = [tensor.gram for tensor in statistics.tensors.values()]
    return np.stack(grams) if grams else np.zeros((0, T, T))


def evaluate(
    statistics: SeriesStatistics,
    parameters: Mapping[str, Parameters] | Parameters,
    target: float,
    holdout: SeriesStatistics | None,
    attempt: Attempt = insist,
) -> Evaluation:
    """Run every backtest of every tensor, and the held-out trials if there are any.

    Args:
        statistics: of the observed checkpoints.
        predictors: one for all tensors, or one per name.
        target: step asked for.
        holdout: statistics of the same tensors over the observed checkpoints and later ones.
        attempt: what to do about a part whose arithmetic fails; unless told otherwise the
            exception goes on.

    Raises:
        RelexError: there is nothing to report on, or a held-out step is not beyond the window.
    """
    names, steps = list(statistics.tensors), statistics.steps
    if not names:
        raise RelexError("the recipe extrapolates no tensor, so there is nothing to report on")
    own = [parameters if isinstance(parameters, Parameters) else parameters[n] for n in names]
    common = Counter(own).most_common(1)[0][0]
    beyond = common.mode == "extrapolate" and target > steps[-1] > 0
    ratio = float(target / steps[-1]) if beyond else None
    rank = min(common.rank, len(steps))
    compared = (*baselines(min(max(rank, 3), len(steps))), *others(rank))
    continuations = (method(own), *compared)
    grams = stacked(statistics)
    tests = backtests(grams, steps, plan(steps, ratio), continuations, attempt)
    return Evaluation(
        names=names,
        steps=steps,
        grams=grams,
        parameters=own,
        common=common,
        target=target,
        ratio=ratio,
        continuations=continuations,
        tests=tests,
        same_ratio=_same_ratio(tests, steps, ratio, continuations[0].needs),
        held_out=None
        if holdout is None
        else _held_out(statistics, holdout, continuations, attempt),
        law=attempt("backtests.forecast", lambda: forecast(tests, steps), None),
    )


def _same_ratio(tests: Backtests, steps: Array, ratio: float | None, needs: int) -> int | None:
    if ratio is None or not needs <= (cut := before_cut(steps, ratio)) < len(steps):
        return None
    return int(np.flatnonzero((tests.fitted == cut) & (tests.target == len(steps) - 1))[0])


def _held_out(
    observed: SeriesStatistics,
    everything: SeriesStatistics,
    continuations: Sequence[Continuation],
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
    trials = [Trial(T, targets)]
    return backtests(stacked(everything), everything.steps, trials, continuations, attempt)
