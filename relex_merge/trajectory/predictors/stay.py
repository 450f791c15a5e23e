"""Standing still: w = e_T, the last observed checkpoint itself, at every rank."""

from __future__ import annotations

import numpy as np

from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.predictors.history import History


def stay(history: History, targets: Array, *, rank: int = 1, window: int | None = None) -> Array:
    """W (1, J, h) float64: e_T for every target."""
    W = np.zeros((1, len(targets), len(history.steps)))
    W[:, :, -1] = 1.0
    return W
