"""TODO"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from relex_merge.trajectory.gram import Array

_SHARE = (np.sqrt(5) - 1) / 2


_ROUNDS = 50  # the bracket shrinks by 0.618 each time, 4e-11 in all


def minimise(objective: Callable[[Array], Array], grid: Array) -> Array:
    """(N,): where each of N functions is smallest, between the ends of ``grid`` (ascending).

    objective: (N,) or () arguments → (N,) values. The best point of the grid is bracketed by its
    neighbours and refined by golden-section search (Kiefer 1953).
    """
    values = np.stack([objective(np.asarray(x)) for x in grid])
    best = values.argmin(axis=0)
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, len(grid) - 1)]
    for _ in range(_ROUNDS):
        inner, outer = high - _SHARE * (high - low), low + _SHARE * (high - low)
        left = objective(inner) <= objective(outer)
        low, high = np.where(left, low, inner), np.where(left, outer, high)
    middle = (low + high) / 2
    found = np.stack([middle, grid[best]])  # an end of the grid stays reachable exactly
    return np.asarray(
        found[np.stack([objective(x) for x in found]).argmin(axis=0), range(len(best))]
    )
