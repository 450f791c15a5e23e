"""Predictors in closed form: stay, line, square root of the step, slope of the last checkpoints.

Every rule takes the history of h checkpoints, target steps (J,) and how to fit, and returns
W (N, J, h) in float64, or (1, J, h) where W does not depend on G.
"""

from __future__ import annotations

import numpy as np

from relex_merge.trajectory.gram import Array, least_squares_rows, two_point_line
from relex_merge.trajectory.predictors.history import FitParameters, History

SHARE = 3  # where no window is given, `local` looks at a third of the checkpoints


def linear(history: History, targets: Array, fit: FitParameters) -> Array:
    """Continue the leading coefficients by a polynomial: RELEX, with ``degree`` 1 a line."""
    H = least_squares_rows(history.steps, targets, degree=fit.degree, window=fit.window)
    return history.spectra.project(H, fit.rank)


def stay(history: History, targets: Array, fit: FitParameters) -> Array:
    """Keep the last checkpoint."""
    W = np.zeros((1, len(targets), len(history.steps)))
    W[:, :, -1] = 1.0
    return W


def sqrt(history: History, targets: Array, fit: FitParameters) -> Array:
    """Continue the leading coefficients as a·√s + b."""
    H = least_squares_rows(np.sqrt(history.steps), np.sqrt(targets), window=fit.window)
    return history.spectra.project(H, fit.rank)


def local(history: History, targets: Array, fit: FitParameters) -> Array:
    """Continue from the latest level at the latest slope, of the window, at least 3 checkpoints."""
    s = history.steps
    wide = max(3, -(-len(s) // SHARE)) if fit.window is None else fit.window
    wide = min(wide, len(s))
    here, later = least_squares_rows(s, [s[-1], 2 * s[-1] - s[0]], window=wide)
    slope = (later - here) / (s[-1] - s[0])
    level = least_squares_rows(s, [s[-1]], window=max(2, -(-wide // 2)))
    ahead = (np.asarray(targets, dtype=np.float64) - s[-1])[:, np.newaxis]
    return history.spectra.project(level + ahead * slope, fit.rank)


def reconstruct(history: History, targets: Array, fit: FitParameters) -> Array:
    """Keep the checkpoints observed at ``targets``, in their leading directions."""
    observed = np.asarray(targets)[:, np.newaxis] == history.steps
    return history.spectra.project(observed.astype(np.float64), fit.rank)


def per_weight_least_squares(history: History, targets: Array, fit: FitParameters) -> Array:
    """Lay a line through every weight on its own: w = h, from the steps alone."""
    return least_squares_rows(history.steps, targets)[np.newaxis]


def line_from_base(history: History, targets: Array, fit: FitParameters) -> Array:
    """Lay a line through the base and the last checkpoint (Miaow-Lab/RLVR-Linearity)."""
    return np.stack([two_point_line(history.steps, target) for target in targets])[np.newaxis]
