"""Coefficients fitted by a curve with one free shape: the step axis is bent, then a line is laid.

For N tensors c_k ≈ a_k x(s) + b_k with the same x for all components of a tensor. Given the shape
of x this is linear least squares, so only the shape is searched for (variable projection, Golub &
Pereyra 1973), by what it leaves of the coefficients.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from relex_merge.trajectory.gram import Array, in_window
from relex_merge.trajectory.predictors.history import History
from relex_merge.trajectory.predictors.minimise import minimise

# (steps in units of the last, shape (N, 1) or ()) → x, broadcast
Axis = Callable[[Array, Array], Array]


def fit_shape(
    history: History, axis: Axis, grid: Array, *, rank: int, window: int | None, offset: bool
) -> Array:
    """(N,): the shape that leaves least of the ``rank`` leading coefficients in the window."""
    s = history.steps
    inside = in_window(s, window)
    found = history.spectra
    c = (found.vectors * np.sqrt(found.eigenvalues)[:, np.newaxis, :])[:, inside, :rank]
    if offset:
        c = c - c.mean(axis=1, keepdims=True)
    scaled = s[inside] / s[-1]

    def left_over(shape: Array) -> Array:
        x = np.broadcast_to(axis(scaled, shape[..., np.newaxis]), c.shape[:2])
        if offset:
            x = x - x.mean(axis=1, keepdims=True)
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        residual = c - x[:, :, np.newaxis] * (x[:, np.newaxis, :] @ c)
        return np.asarray((residual**2).sum(axis=(1, 2)))

    return minimise(left_over, grid)


def rows(
    history: History, targets: Array, axis: Axis, shape: Array, *, window: int | None, offset: bool
) -> Array:
    """(N, J, h): least-squares rows over the bent axis, 0 outside the window."""
    s = history.steps
    inside = in_window(s, window)
    x = axis(s[inside] / s[-1], shape[:, np.newaxis])
    at = axis(np.asarray(targets, dtype=np.float64) / s[-1], shape[:, np.newaxis])
    centre = x.mean(axis=1, keepdims=True) if offset else np.zeros((len(x), 1))
    x, at = x - centre, at - centre
    H = np.zeros((len(shape), at.shape[1], len(s)))
    slope = x / (x**2).sum(axis=1, keepdims=True)
    H[:, :, inside] = at[:, :, np.newaxis] * slope[:, np.newaxis, :]
    if offset:
        H[:, :, inside] += 1 / x.shape[1]
    return H
