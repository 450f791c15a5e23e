"""The smallest value of many functions of one number at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from relex_merge.trajectory.gram import Array

_SHARE = (np.sqrt(5) - 1) / 2
_ROUNDS = 50  # the bracket shrinks by 0.618 each time, 4e-11 in all


def minimise(objective: Callable[[Array], Array], grid: Array) -> Array:
    """Return (N,) where each of N functions is smallest, between the ends of ``grid``.

    The best point of the grid is bracketed by its neighbours and refined by golden-section search
    (Kiefer 1953).

    Args:
        objective: (N,) or () arguments → (N,) values.
        grid: Arguments, ascending.
    """
    values = np.stack([objective(np.asarray(x)) for x in grid])
    best = values.argmin(axis=0)
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, len(grid) - 1)]
    inner, outer = high - _SHARE * (high - low), low + _SHARE * (high - low)
    at_inner, at_outer = objective(inner), objective(outer)
    for _ in range(_ROUNDS):
        left = at_inner <= at_outer
        low, high = np.where(left, low, inner), np.where(left, outer, high)
        # Of the two points within, one is the golden section of what is left, too.
        new = np.where(left, high - _SHARE * (high - low), low + _SHARE * (high - low))
        at_new = objective(new)
        inner, outer = np.where(left, new, outer), np.where(left, inner, new)
        at_inner, at_outer = np.where(left, at_new, at_outer), np.where(left, at_inner, at_new)
    middle = (low + high) / 2
    found = np.stack([middle, grid[best]])  # an end of the grid stays reachable exactly
    return np.asarray(
        found[np.stack([objective(x) for x in found]).argmin(axis=0), range(len(best))]
    )
