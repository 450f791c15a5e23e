"""c(s) ≈ a s^p + b with the exponent p in 0 … 1 fitted: from log s, over √s, to the line.

The axis is Box and Cox's (s^p − 1)/p (J. R. Stat. Soc. B 26, 1964), which is log s at p = 0, so
that the limit is part of the family. One p per tensor, the one that leaves least of its leading
coefficients (variable projection, Golub & Pereyra 1973). Steps must be above 0.
"""

from __future__ import annotations

import numpy as np

from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.predictors import curve
from relex_merge.trajectory.predictors.history import History

_GRID = np.linspace(0.0, 1.0, 21)
_LOGARITHM = 1e-6  # below this exponent the axis is log s to the last digit that counts


def _axis(s: Array, p: Array) -> Array:
    logarithm = np.log(s)
    safe = np.maximum(p, _LOGARITHM)
    return np.where(p < _LOGARITHM, logarithm, np.expm1(safe * logarithm) / safe)


def exponent(history: History, *, rank: int = 1, window: int | None = None) -> Array:
    """(N,): the fitted p."""
    return curve.fit_shape(history, _axis, _GRID, rank=rank, window=window, offset=True)


def power(history: History, targets: Array, *, rank: int = 1, window: int | None = None) -> Array:
    """W (N, J, h) float64 for ``targets`` (J,)."""
    p = exponent(history, rank=rank, window=window)
    H = curve.rows(history, targets, _axis, p, window=window, offset=True)
    return history.spectra.project(H, rank)
