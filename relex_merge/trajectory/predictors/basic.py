"""Predictors in closed form: stay, line, square root of the step, slope of the last checkpoints."""

from __future__ import annotations

import numpy as np

from relex_merge.trajectory.gram import Array, least_squares_rows
from relex_merge.trajectory.predictors.history import History


def linear(
    history: History, targets: Array, *, rank: int = 1, window: int | None = None, degree: int = 1
) -> Array:
    """W (N, J, h) float64 for ``targets`` (J,); the batch of :func:`trajectory.weights`."""
    H = least_squares_rows(history.steps, targets, degree=degree, window=window)
    return history.spectra.project(H, rank)


def stay(history: History, targets: Array, *, rank: int = 1, window: int | None = None) -> Array:
    """W (1, J, h) float64: e_T for every target."""
    W = np.zeros((1, len(targets), len(history.steps)))
    W[:, :, -1] = 1.0
    return W


def sqrt(history: History, targets: Array, *, rank: int = 1, window: int | None = None) -> Array:
    """W (N, J, h) float64 for ``targets`` (J,)."""
    H = least_squares_rows(np.sqrt(history.steps), np.sqrt(targets), window=window)
    return history.spectra.project(H, rank)


SHARE = 3  # W is a third of the checkpoints where no window is given


def local(history: History, targets: Array, *, rank: int = 1, window: int | None = None) -> Array:
    """W (N, J, h) float64 for ``targets`` (J,); window: W, at least 3 by default."""
    s = history.steps
    wide = max(3, -(-len(s) // SHARE)) if window is None else window
    wide = min(wide, len(s))
    here, later = least_squares_rows(s, [s[-1], 2 * s[-1] - s[0]], window=wide)
    slope = (later - here) / (s[-1] - s[0])
    level = least_squares_rows(s, [s[-1]], window=max(2, -(-wide // 2)))
    ahead = (np.asarray(targets, dtype=np.float64) - s[-1])[:, np.newaxis]
    return history.spectra.project(level + ahead * slope, rank)
