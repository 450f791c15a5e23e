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

from relex_merge.trajectory.backtests.gaps import Attempt, insist
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.predictors import Predictor
from relex_merge.trajectory.predictors.history import FEWEST_FITTED, History, before_cut
from relex_merge.trajectory.spectra import one_thread
from relex_merge.trajectory.statistics import SeriesStatistics

Indices = npt.NDArray[np.int64]
NODES = 12


@dataclass(frozen=True)
class Cut:
    """Fit on the first ``fitted`` checkpoints, predict those at ``targets`` (J,), all later."""

    fitted: int
    targets: Indices


@dataclass(frozen=True)
class Backtests:
    """Squared errors of N tensors in P backtests, all of them in one unit of their own.

    Attributes:
        steps: (T,) of all checkpoints, ascending.
        fitted: (P,) number of checkpoints before the cut.
        target: (P,) index of the predicted one.
        ratio: (P,) s_target / s_fitted, the extrapolation ratio.
        still: (N, P) error of standing still.
        errors: Predictor's name → (N, P), NaN where it needs more checkpoints than lie before the
            cut.
    """

    steps: Array
    fitted: Indices
    target: Indices
    ratio: Array
    still: Array
    errors: Mapping[str, Array]

    def pooled(self, name: str, p: int, rows: Sequence[int]) -> float:
        """Return the skill of the tensors ``rows`` together in backtest p; NaN if none moved."""
        still = self.still[rows, p].sum()
        return float(1 - self.errors[name][rows, p].sum() / still) if still > 0 else float("nan")

    def last(self) -> Indices:
        """Return which backtests predict the last observed checkpoint, widest ratio first."""
        return np.flatnonzero(self.target == self.target.max(initial=0))


def stacked(statistics: SeriesStatistics) -> Array:
    """Return (N, T, T) the Gram matrices of all tensors, in their order."""
    T = len(statistics.steps)
    grams = [tensor.gram for tensor in statistics.tensors.values()]
    return np.stack(grams) if grams else np.zeros((0, T, T))


def plan(steps: Array, ratio: float | None) -> list[Cut]:
    """Return the cuts of a series at ``steps`` (T,) ascending: a grid of cuts and targets.

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
        Cut(n, np.asarray([m - 1 for m in sorted(nodes) if m > n], dtype=np.int64)) for n in usable
    ]


def backtests(
    grams: Array,
    steps: Array,
    cuts: Sequence[Cut],
    predictors: Sequence[Predictor],
    attempt: Attempt = insist,
) -> Backtests:
    """Run every predictor at every cut.

    Args:
        grams: G (N, T, T).
        steps: (T,) ascending.
        cuts: Where to cut and what to predict, as from :func:`plan`.
        predictors: What to try; their names tell them apart.
        attempt: What to do about a predictor whose arithmetic fails at a cut; unless told otherwise
            the exception goes on.
    """
    whole = History.of(grams, steps)
    with one_thread():
        results = [_errors(whole, cut, predictors, attempt) for cut in cuts]
    N = len(grams)

    def joined(columns: list[Array]) -> Array:
        return np.concatenate([np.zeros((N, 0)), *columns], axis=1)

    fitted = np.asarray([cut.fitted for cut in cuts for _ in cut.targets], dtype=np.int64)
    target = np.asarray([j for cut in cuts for j in cut.targets], dtype=np.int64)
    return Backtests(
        steps=steps,
        fitted=fitted,
        target=target,
        ratio=steps[target] / steps[fitted - 1],
        still=joined([_standing_still(whole.grams, cut) for cut in cuts]),
        errors={p.name: joined([result[p.name] for result in results]) for p in predictors},
    )


def _errors(
    whole: History, cut: Cut, predictors: Sequence[Predictor], attempt: Attempt
) -> dict[str, Array]:
    """Return name → (N, J) squared errors at one cut, NaN where a predictor cannot fit."""
    history = whole.first(cut.fitted)
    nothing = np.full((len(whole.grams), len(cut.targets)), np.nan)

    def errors_of(predictor: Predictor) -> Array:
        weights = predictor.predict(history, whole.steps[cut.targets])
        return _squared_errors(whole.grams, weights, cut)

    return {
        p.name: attempt(f"backtests.{p.name}", partial(errors_of, p), nothing)
        if p.is_enough(history.steps)
        else nothing
        for p in predictors
    }


def _squared_errors(grams: Array, weights: Array, cut: Cut) -> Array:
    """Return (N, J) ‖Mᵀw − δ_j‖² for W (N or 1, J, h) and G (N, T, T)."""
    h, targets = cut.fitted, cut.targets
    quadratic = ((weights @ grams[:, :h, :h]) * weights).sum(axis=2)
    cross = (weights * grams[:, targets, :h]).sum(axis=2)
    return np.asarray(np.maximum(quadratic - 2 * cross + grams[:, targets, targets], 0.0))


def _standing_still(grams: Array, cut: Cut) -> Array:
    """Return (N, J) ‖θ_h − θ_j‖²."""
    still = np.zeros((1, len(cut.targets), cut.fitted))
    still[:, :, -1] = 1.0
    return _squared_errors(grams, still, cut)
