"""RELEX spelled out on the explicit matrix M, in float64; the tests' independent reference.

M (T × d) holds the deltas δ_t = θ_t − θ₀. Nothing here uses the Gram matrix or relex_merge: the SVD
is numpy's, each coefficient series is fitted by np.polyfit, and θ̂ − θ₀ is put together again.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]

UNEVEN = np.asarray([1.0, 2.0, 5.0, 7.0, 8.0, 13.0, 20.0, 21.0, 30.0, 44.0])


def relative(actual: Array, expected: Array) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def polynomial(steps: Array, y: Array, target: float, degree: int, window: int | None) -> Array:
    """np.polyfit through the last ``window`` steps, at ``target``; y is (T,) or (T, d)."""
    last = np.argsort(steps)[-(window or len(steps)) :]
    centre, scale = steps[last].mean(), np.ptp(steps[last])
    powers = np.arange(degree, -1, -1)
    p = np.polyfit((steps[last] - centre) / scale, y[last], degree)
    return np.asarray(((target - centre) / scale) ** powers @ p)


def naive_relex(
    M: Array, steps: Array, target: float, rank: int, degree: int = 1, window: int | None = None
) -> Array:
    """θ̂ − θ₀ (d,): SVD of M, a polynomial through each coefficient series, reconstruction."""
    U, S, Vt = np.linalg.svd(M, full_matrices=False)
    delta = np.zeros(M.shape[1])
    for k in range(min(rank, len(S))):
        delta += polynomial(steps, U[:, k] * S[k], target, degree, window) * Vt[k]
    return delta


def naive_reconstruction(M: Array, j: int, rank: int) -> Array:
    U, S, Vt = np.linalg.svd(M, full_matrices=False)
    return np.asarray((U[j, :rank] * S[:rank]) @ Vt[:rank])


def deltas(seed: int, steps: Array, d: int) -> Array:
    """M (T, d) with singular values 1, 0.6, 0.36, … and a first coefficient that grows."""
    rng = np.random.default_rng(seed)
    U = rng.normal(size=(len(steps), min(len(steps), d)))
    U[:, 0] = steps / steps.max() + 0.1 * U[:, 0] + 0.2
    V = rng.normal(size=(d, U.shape[1]))
    S = 0.6 ** np.arange(U.shape[1])
    return np.asarray(np.linalg.qr(U)[0] * S @ np.linalg.qr(V)[0].T)


def naive_skill(M: Array, steps: Array, ratio: float, rank: int) -> float:
    """Skill of predicting the last checkpoint from those up to s_T / ratio; steps ascending."""
    h = int(np.count_nonzero(steps <= steps[-1] / ratio * (1 + 1e-12)))
    predicted = naive_relex(M[:h], steps[:h], float(steps[-1]), rank)
    missed, still = predicted - M[-1], M[h - 1] - M[-1]
    return float(1 - (missed @ missed) / (still @ still))


def even_walk_eigenvalues(T: int) -> Array:
    """(T,): the eigenvalues of the random walk's G at steps 1 … T, descending, in closed form.

    λ_k = 1 / (4 sin²((2k − 1)π / (4T + 2))): the inverse of min(i, j) is the second-difference
    matrix with one free end, whose eigenvectors are sines.
    """
    k = np.arange(1, T + 1)
    return np.asarray(0.25 / np.sin((2 * k - 1) * np.pi / (4 * T + 2)) ** 2)
