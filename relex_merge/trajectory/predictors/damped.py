"""The line, held back the more the further it reaches: θ̂ = θ_T + φ(r) (θ̂_line − θ_T).

After the damped trends of time-series forecasting (Gardner & McKenzie, "Forecasting trends in time
series", Management Science 31, 1985), with a shrink that depends on the ratio r = s*/s_T, since
that is what a path that slows down depends on: φ(r) = β r^{−γ}, 0 ≤ β ≤ 1, γ ≥ 0. Both are fitted
to the trials within the history: least squares of the errors relative to standing still.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.predictors.basic import linear, stay
from relex_merge.trajectory.predictors.history import History, Rule
from relex_merge.trajectory.predictors.minimise import minimise
from relex_merge.trajectory.predictors.trials import Trials, pairs, run_trials

_GRID = np.linspace(0.0, 3.0, 31)


def shrink(trials: Trials) -> tuple[Array, Array]:
    """(β, γ), (N,) each, from trials of (line, standing still)."""
    # The residual is (θ_h − θ_j) + φ (θ̂ − θ_h): its square is A + 2 φ B + φ² C.
    R, A = trials.products, np.where(trials.still > 0, trials.still, np.inf)
    weight = trials.late / A
    B = weight * (R[:, :, 0, 1] - R[:, :, 1, 1])
    C = weight * (R[:, :, 0, 0] - 2 * R[:, :, 0, 1] + R[:, :, 1, 1])

    def best(gamma: Array) -> tuple[Array, Array]:
        reach = trials.ratio ** -np.broadcast_to(gamma, (len(R),))[:, np.newaxis]
        b, c = (reach * B).sum(axis=1), (reach**2 * C).sum(axis=1)
        beta = np.clip(-b / np.where(c > 0, c, np.inf), 0.0, 1.0)
        return beta, 2 * beta * b + beta**2 * c

    gamma = minimise(lambda g: best(g)[1], _GRID)
    return best(gamma)[0], gamma


def damped(history: History, targets: Array, *, rank: int = 1, window: int | None = None) -> Array:
    """W (N, J, h) float64 for ``targets`` (J,)."""
    line = partial(_short, rank=rank, window=window)
    rules: dict[str, Rule] = {f"linear {rank} {window}": line, "stay": stay}
    beta, gamma = shrink(run_trials(history, rules, pairs(history.steps)))
    ratio = np.asarray(targets, dtype=np.float64) / history.steps[-1]
    phi = (beta[:, np.newaxis] * ratio ** -gamma[:, np.newaxis])[:, :, np.newaxis]
    return np.asarray((1 - phi) * stay(history, targets) + phi * line(history, targets))


def _short(history: History, targets: Array, *, rank: int, window: int | None) -> Array:
    """The line, with a window no wider than the history."""
    inside = None if window is None else min(window, len(history.steps))
    return linear(history, targets, rank=rank, window=inside)
