"""Quadratic programmes on the simplex, small enough to look at every face."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from relex_merge.trajectory.gram import Array

_SAME = 1e-9  # a face must improve on a smaller one by this share to be taken


def minimise_quadratic(R: Array) -> Array:
    """α (N, K): arg min αᵀ R α with α ≥ 0, Σ α = 1, for R (N, K, K) positive semi-definite.

    On a face of the simplex the minimum solves R α = μ 1 (Karush, Kuhn & Tucker); the 2^K − 1 faces
    are tried from the corners up, so that of equal solutions the sparsest and first is found. K up
    to about ten.
    """
    N, K = R.shape[:2]
    scale = np.maximum(np.einsum("nkk->nk", R).max(axis=1), np.finfo(float).tiny)
    R = R / scale[:, np.newaxis, np.newaxis]
    best, lowest = np.zeros((N, K)), np.full(N, np.inf)
    for size in range(1, K + 1):
        for face in combinations(range(K), size):
            alpha = _on_face(R[:, face][:, :, face])
            value = np.einsum("na,nab,nb->n", alpha, R[:, face][:, :, face], alpha)
            better = (alpha >= 0).all(axis=1) & (value < lowest * (1 - _SAME))
            lowest = np.where(better, value, lowest)
            found = np.zeros((N, K))
            found[:, face] = alpha
            best[better] = found[better]
    return best


def _on_face(R: Array) -> Array:
    """α (N, k) with R α = μ 1 and Σ α = 1; −1 where R is singular there (a smaller face does)."""
    N, k = R.shape[:2]
    system = np.zeros((N, k + 1, k + 1))
    system[:, :k, :k], system[:, :k, k], system[:, k, :k] = R, 1.0, 1.0
    right = np.zeros((N, k + 1, 1))
    right[:, k] = 1.0
    size = np.abs(np.linalg.eigvalsh(system))  # equilibrated: R is in units of its largest entry
    singular = size.min(axis=1) < 1e-13 * size.max(axis=1)
    system[singular] = np.eye(k + 1)
    alpha = np.linalg.solve(system, right)[:, :k, 0]
    alpha[singular] = -1.0
    return alpha
