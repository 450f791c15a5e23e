"""The recipe's polynomial through the first coefficient of every tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from relex_merge.trajectory.gram import Array, in_window, least_squares_rows


@dataclass(frozen=True)
class Fits:
    """Least-squares fits of N coefficient series c (N, T).

    fitted: (N, T) at every observed step, also outside the window. r2: (N,) 1 − SS_res / SS_tot
    over the window; 1 where the series is constant, NaN where it is 0. predicted: (N,) at the
    target step.
    """

    fitted: Array
    r2: Array
    predicted: Array


def fits(c: Array, steps: Array, target: float, *, degree: int, window: int | None) -> Fits:
    """Fit c (N, T) at ``steps`` (T,); a batch of :func:`relex_merge.trajectory.gram.fit`."""
    inside = in_window(steps, window)
    values = c @ least_squares_rows(steps, [*steps, target], degree=degree, window=window).T
    fitted = values[:, :-1]
    residual = ((c - fitted)[:, inside] ** 2).sum(axis=1)
    total = ((c[:, inside] - c[:, inside].mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    constant = np.where(np.any(c, axis=1), 1.0, np.nan)
    r2 = np.where(total > 0, 1 - residual / np.where(total > 0, total, 1.0), constant)
    return Fits(fitted, r2, values[:, -1])
