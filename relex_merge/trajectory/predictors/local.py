"""The latest slope from where the run now is: c(s) ≈ ĉ_T + a (s − s_T).

Local linear regression at the edge (Fan & Gijbels, *Local Polynomial Modelling*, 1996): the slope a
by least squares over the last W checkpoints, the last point ĉ_T from the line through the latter
half of them, because a level needs less averaging than a slope. Right after a warm-up, or where a
run has settled into a steady pace.
"""

from __future__ import annotations

import numpy as np

from relex_merge.trajectory.gram import Array, least_squares_rows
from relex_merge.trajectory.predictors.history import History

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
