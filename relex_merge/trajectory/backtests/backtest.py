"""Backtests: fit on the first checkpoints, predict a later observed one, compare with the truth.

Everything follows from G: the error of predicting checkpoint j with weights w on the first h is
‖Mᵀw − δ_j‖² = (w − e_j)ᵀ G (w − e_j). The yardstick is standing still at the last fitted
checkpoint, skill = 1 − ‖θ̂_j − θ_j‖² / ‖θ_h − θ_j‖²: 1 is perfect, 0 as good as doing nothing,
below 0 worse. Errors are squared distances, so that those of a group of tensors, or of the whole
model, are sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from relex_merge.trajectory.backtests.compared import Continuation
from relex_merge.trajectory.backtests.gaps import Attempt, insist
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.predictors.history import History
from relex_merge.trajectory.predictors.trials import FEWEST_FITTED, before_cut

Indices = npt.NDArray[np.int64]
NODES = 12
__all__ = ["FEWEST_FITTED", "Backtests", "Indices", "Trial", "backtests", "before_cut", "plan"]


@dataclass(frozen=True)
class Trial:
    """Fit on the first ``fitted`` checkpoints, predict those at ``targets`` (J,), all later."""

    fitted: int
    targets: Indices


@dataclass(frozen=True)
class Backtests:
    """Squared errors of N tensors in P backtests, in weight².

    steps: (T,) of all checkpoints, ascending.
    fitted: (P,) number of checkpoints before the cut; target: (P,) index of the predicted one.
    ratio: (P,) s_target / s_fitted, the extrapolation ratio. still: (N, P) error of standing still.
    errors: continuation key → (N, P), NaN where it needs more checkpoints than lie before the cut.
    """

    steps: Array
    fitted: Indices
    target: Indices
    ratio: Array
    still: Array
    errors: Mapping[str, Array]

    def pooled(self, key: str, p: int, rows: Sequence[int]) -> float:
        """Skill of the tensors ``rows`` together in backtest p; NaN where none of them moved."""
        still = self.still[rows, p].sum()
        return float(1 - self.errors[key][rows, p].sum() / still) if still > 0 else float("nan")

    def last(self) -> Indices:
        """Which backtests predict the last observed checkpoint, from the widest ratio down."""
        return np.flatnonzero(self.target == self.target.max(initial=0))


def plan(steps: Array, ratio: float | None) -> list[Trial]:
    """The backtests of a series at ``steps`` (T,) ascending: a grid of cut-offs and targets.

    Both run over about a dozen checkpoints, evenly spaced in log step, because what matters is the
    ratio between them. The cut at the user's own ``ratio`` is always one of them.
    """
    T = len(steps)
    first = max(steps[min(FEWEST_FITTED - 1, max(T - 2, 0))], np.finfo(float).tiny)
    marks = np.geomspace(first, steps[-1], NODES) * (1 + 1e-12)
    nodes = {int(n) for n in np.searchsorted(steps, marks, side="right")} | {T}
    cuts = nodes if ratio is None else nodes | {before_cut(steps, ratio)}
    usable = [n for n in sorted(cuts) if 0 < n < T and steps[n - 1] > 0]
    return [
        Trial(n, np.asarray([m - 1 for m in sorted(nodes) if m > n], dtype=np.int64))
        for n in usable
    ]


def squared_errors(grams: Array, weights: Array, trial: Trial) -> Array:
    """(N, J): ‖Mᵀw − δ_j‖² for W (N or 1, J, h) and G (N, T, T)."""
    h, targets = trial.fitted, trial.targets
    quadratic = ((weights @ grams[:, :h, :h]) * weights).sum(axis=2)
    cross = (weights * grams[:, targets, :h]).sum(axis=2)
    return np.asarray(np.maximum(quadratic - 2 * cross + grams[:, targets, targets], 0.0))


def standing_still(grams: Array, trial: Trial) -> Array:
    """(N, J): ‖θ_h − θ_j‖²."""
    still = np.zeros((1, len(trial.targets), trial.fitted))
    still[:, :, -1] = 1.0
    return squared_errors(grams, still, trial)


def trial_errors(
    whole: History,
    trial: Trial,
    continuations: Sequence[Continuation],
    attempt: Attempt = insist,
) -> dict[str, Array]:
    """key → (N, J) squared errors of every continuation in one trial, NaN where it cannot fit."""
    history = whole.first(trial.fitted)
    grams, steps = whole.grams, whole.steps
    nothing = np.full((len(grams), len(trial.targets)), np.nan)

    def errors_of(each: Continuation) -> Array:
        return squared_errors(grams, each.rule(history, steps[trial.targets]), trial)

    return {
        each.key: attempt(f"backtests.{each.key}", partial(errors_of, each), nothing)
        if each.fits(history.steps)
        else nothing
        for each in continuations
    }


def backtests(
    grams: Array,
    steps: Array,
    trials: Sequence[Trial],
    continuations: Sequence[Continuation],
    attempt: Attempt = insist,
) -> Backtests:
    """Run ``trials`` on G (N, T, T) at ``steps`` (T,) ascending.

    Args:
        grams: G (N, T, T), in weight².
        steps: (T,) ascending.
        trials: what to fit on and to predict.
        continuations: the rules that predict.
        attempt: what to do about a continuation whose arithmetic fails in a trial; unless told
            otherwise the exception goes on.
    """
    whole = History(grams, steps)
    results = [trial_errors(whole, trial, continuations, attempt) for trial in trials]
    N = len(grams)

    def joined(columns: list[Array]) -> Array:
        return np.concatenate([np.zeros((N, 0)), *columns], axis=1)

    fitted = np.asarray([t.fitted for t in trials for _ in t.targets], dtype=np.int64)
    target = np.asarray([j for t in trials for j in t.targets], dtype=np.int64)
    return Backtests(
        steps=steps,
        fitted=fitted,
        target=target,
        ratio=steps[target] / steps[fitted - 1],
        still=joined([standing_still(grams, trial) for trial in trials]),
        errors={c.key: joined([result[c.key] for result in results]) for c in continuations},
    )
