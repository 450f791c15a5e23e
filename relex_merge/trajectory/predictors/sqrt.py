"""c(s) ≈ a √s + b: the path of a diffusing average, and of runs that slow down steadily.

With updates of fixed size and independent direction ‖θ_s − θ₀‖ grows as √s (Hoffer, Hubara &
Soudry, "Train longer, generalize better", arXiv 1705.08741, find log s to √s in SGD). The fit is
linear least squares over √s, hence w = P_r h as for the line. Steps must be above 0.
"""

from __future__ import annotations

import numpy as np

from relex_merge.trajectory.gram import Array, least_squares_rows
from relex_merge.trajectory.predictors.history import History


def sqrt(history: History, targets: Array, *, rank: int = 1, window: int | None = None) -> Array:
    """W (N, J, h) float64 for ``targets`` (J,)."""
    H = least_squares_rows(np.sqrt(history.steps), np.sqrt(targets), window=window)
    return history.spectra.project(H, rank)
