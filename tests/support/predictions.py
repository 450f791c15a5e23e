"""What the named predictors make of series whose law is known."""

from __future__ import annotations

import numpy as np

from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.predictors import PREDICTORS, FitParameters
from relex_merge.trajectory.predictors.history import History

EVEN = np.arange(1.0, 31)


def weights(
    name: str,
    G: Array,
    steps: Array,
    target: float,
    *,
    rank: int = 1,
    window: int | None = None,
    degree: int = 1,
) -> Array:
    """Return w (T,) of a named predictor."""
    fit = FitParameters(rank, window, degree)
    return PREDICTORS[name].with_fit(fit).weights(G, steps, target)


def of_one(G: Array, steps: Array) -> History:
    """The history of one tensor."""
    return History.of(G[np.newaxis], steps)


def along(c: Array, d: int = 40, seed: int = 0) -> Array:
    """M (T, d): the coefficients c on one direction."""
    return np.asarray(np.outer(c, np.random.default_rng(seed).standard_normal(d)))


def coefficient(name: str, M: Array, steps: Array, target: float) -> float:
    """What the predictor makes of the series, in units of its last observed value."""
    predicted = M.T @ weights(name, M @ M.T, steps, target)
    return float(predicted @ M[-1] / (M[-1] @ M[-1]))
