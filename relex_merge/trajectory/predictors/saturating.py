"""c(s) ≈ c∞ (1 − e^{−s/τ}): what is left to learn decays at a constant rate.

The path of gradient flow in a quadratic well, from the base at s = 0 to its bottom. One τ per
tensor, the one that leaves least of its leading coefficients (variable projection, Golub & Pereyra
1973); τ → ∞ is the line through the base.
"""

from __future__ import annotations

import numpy as np

from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.predictors import curve
from relex_merge.trajectory.predictors.history import History

_GRID = np.linspace(np.log(1e-3), np.log(1e2), 47)  # log(s_T / τ)


def _axis(s: Array, log_rate: Array) -> Array:
    rate = np.exp(log_rate)
    return np.asarray(-np.expm1(-rate * s) / rate)


def time_constant(history: History, *, rank: int = 1, window: int | None = None) -> Array:
    """(N,): the fitted τ, in steps, from 0.01 to 1000 times the last step."""
    fitted = curve.fit_shape(history, _axis, _GRID, rank=rank, window=window, offset=False)
    return np.asarray(history.steps[-1] / np.exp(fitted))


def saturating(
    history: History, targets: Array, *, rank: int = 1, window: int | None = None
) -> Array:
    """W (N, J, h) float64 for ``targets`` (J,)."""
    tau = time_constant(history, rank=rank, window=window)
    log_rate = np.log(history.steps[-1] / tau)
    H = curve.rows(history, targets, _axis, log_rate, window=window, offset=False)
    return history.spectra.project(H, rank)
