"""RELEX: every leading coefficient continued by its least-squares polynomial, a line by default.

c_k(s) ≈ a_k s + b_k, hence w = P_r h with the least-squares row h (arXiv 2605.21468). Right where
learning rate and noise are small: the paper's regime.
"""

from __future__ import annotations

from relex_merge.trajectory.gram import Array, least_squares_rows
from relex_merge.trajectory.predictors.history import History


def linear(
    history: History, targets: Array, *, rank: int = 1, window: int | None = None, degree: int = 1
) -> Array:
    """W (N, J, h) float64 for ``targets`` (J,); the batch of :func:`trajectory.weights`."""
    H = least_squares_rows(history.steps, targets, degree=degree, window=window)
    return history.spectra.project(H, rank)
