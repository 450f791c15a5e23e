"""The arithmetic of a weight trajectory, all of it on T × T matrices in float64.

One tensor, base θ₀, checkpoints θ₁…θ_T at steps s₁…s_T, deltas δ_t = θ_t − θ₀ flattened to d
numbers and stacked as M (T × d). Everything here starts from the Gram matrix G = M Mᵀ (T × T) and
the steps; nothing here knows of tensors, files or devices.

A predictor is a weight vector w (T,) with θ̂ = θ₀ + Σ_t w_t δ_t = θ₀ + Mᵀw. Two facts carry the
module:

* M = Σ_k σ_k u_k v_kᵀ with G u_k = σ_k² u_k, and the coefficient of checkpoint t along v_k is
  c_k(t) = σ_k u_k(t) (RELEX, arXiv 2605.21468: SVD of the deltas from the base, not centred).
* A least-squares fit of any series y at the steps, read off at s*, is hᵀy with a row h that depends
  on the steps alone. Fitting each c_k and mapping back gives θ̂ = θ₀ + Σ_k (hᵀc_k) v_k, hence
  w = Σ_{k≤r} (hᵀu_k) u_k = P_r h: the least-squares row, projected on the r leading left singular
  vectors. No division by σ, no sign of u_k. With r = T it is per-weight least squares, w = h; with
  h = e_j it is the rank-r reconstruction of checkpoint j.

Checkpoints may come in any order; results are in the order given. "Last" and "first" mean by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
Steps: TypeAlias = Sequence[float] | Array


@dataclass(frozen=True)
class Spectrum:
    """Eigen-decomposition of G.

    eigenvalues: (T,) λ_k = σ_k², descending, in weight²; rounding noise (below T·ε·λ₁) is 0.
    vectors: (T, T), column k is u_k; sign and, among equal λ, basis are arbitrary.
    """

    eigenvalues: Array
    vectors: Array

    @property
    def numerical_rank(self) -> int:
        """How many directions the checkpoints really span; 0 for a tensor that never moves."""
        return int(np.count_nonzero(self.eigenvalues))

    def explained_variance(self, rank: int = 1) -> float:
        """Σ_{k≤rank} λ_k / Σ λ_k; NaN for a tensor that never moves."""
        total = self.eigenvalues.sum()
        return float(self.eigenvalues[:rank].sum() / total) if total > 0 else float("nan")

    def coefficients(self, rank: int = 1) -> Array:
        """(T, rank): c_k(t) = σ_k u_k(t), signed so that each series has a positive sum."""
        c = self.vectors[:, :rank] * np.sqrt(self.eigenvalues[:rank])
        sign = np.where(c.sum(axis=0) < 0, -1.0, 1.0)
        return np.asarray(c * sign)

    def project(self, h: Array, rank: int) -> Array:
        """P_r h (T,): the part of h in the span of the leading ``rank`` directions that exist."""
        U = self.vectors[:, : min(rank, self.numerical_rank)]
        return np.asarray(U @ (U.T @ h))


@dataclass(frozen=True)
class Fit:
    """Least-squares polynomial through one coefficient series.

    fitted: (T,) values at every observed step, also outside the window.
    r2: 1 − SS_res / SS_tot over the window; 1 when the series is constant and met, else NaN.
    predicted: value at the target step.
    """

    fitted: Array
    r2: float
    predicted: float


def spectrum(gram: Array) -> Spectrum:
    """Eigen-decomposition of G (T × T, symmetric, float64), largest first."""
    eigenvalues, vectors = np.linalg.eigh(np.asarray(gram, dtype=np.float64))
    eigenvalues, vectors = eigenvalues[::-1], vectors[:, ::-1]
    noise = len(eigenvalues) * np.finfo(np.float64).eps * max(float(eigenvalues[0]), 0.0)
    return Spectrum(np.where(eigenvalues > noise, eigenvalues, 0.0), vectors)


def in_window(steps: Steps, window: int | None) -> npt.NDArray[np.bool_]:
    """(T,) True for the last ``window`` steps; all of them when ``window`` is None."""
    s = np.asarray(steps, dtype=np.float64)
    if window is None:
        return np.ones(len(s), dtype=bool)
    return np.asarray(s >= np.sort(s)[-window])


def least_squares_rows(
    steps: Steps, targets: Steps, *, degree: int = 1, window: int | None = None
) -> Array:
    """H (len(targets), T): Hy = the polynomial of ``degree`` fitted to y at ``steps``, at
    ``targets``.

    Each row depends on the steps alone, sums to 1, and is 0 outside the window; it is also the
    weight vector of per-weight least squares. The step axis is centred and scaled first, so that
    neither its origin nor its unit matters. Raises ValueError when the window holds fewer than
    ``degree + 1``.
    """
    s = np.asarray(steps, dtype=np.float64)
    inside = in_window(s, window)
    fitted_steps = s[inside]
    if len(fitted_steps) < degree + 1:
        raise ValueError(
            f"a fit of degree {degree} needs at least {degree + 1} checkpoints, "
            f"the window holds {len(fitted_steps)}"
        )
    centre = fitted_steps.mean()
    scale = np.abs(fitted_steps - centre).max()

    def vandermonde(x: Array) -> Array:
        return np.polynomial.legendre.legvander((x - centre) / scale, degree)

    Q, R = np.linalg.qr(vandermonde(fitted_steps))
    H = np.zeros((len(targets), len(s)))
    at_targets = vandermonde(np.asarray(targets, dtype=np.float64))
    H[:, inside] = np.linalg.solve(R.T, at_targets.T).T @ Q.T
    return H


def least_squares_row(
    steps: Steps, target: float, *, degree: int = 1, window: int | None = None
) -> Array:
    """h (T,): the row of :func:`least_squares_rows` for one target step."""
    return np.asarray(least_squares_rows(steps, [target], degree=degree, window=window)[0])


def unit(T: int, j: int) -> Array:
    """e_j (T,): the predictor that returns checkpoint j; with the last one, "standing still"."""
    e = np.zeros(T)
    e[j] = 1.0
    return e


def two_point_line(steps: Steps, target: float) -> Array:
    """w (T,) of the line through the base (step 0) and the last checkpoint: (s*/s_T) e_T."""
    s = np.asarray(steps, dtype=np.float64)
    last = int(s.argmax())
    return np.asarray(unit(len(s), last) * (target / s[last]))


def weights(
    spectrum_: Spectrum,
    steps: Steps,
    target: float,
    *,
    rank: int = 1,
    degree: int = 1,
    window: int | None = None,
) -> Array:
    """w (T,) of RELEX: the ``rank`` leading coefficients, each continued by least squares to
    ``target``.

    A tensor that never moved gets w = 0, so that the base comes back unchanged. Raises ValueError
    as :func:`least_squares_row` does.
    """
    return spectrum_.project(least_squares_row(steps, target, degree=degree, window=window), rank)


def reconstruction_weights(
    spectrum_: Spectrum, steps: Steps, target: float, *, rank: int = 1
) -> Array:
    """w (T,) of the rank-r reconstruction of the checkpoint observed at step ``target``.

    Raises ValueError when no checkpoint was observed there.
    """
    s = np.asarray(steps, dtype=np.float64)
    observed = np.flatnonzero(s == target)
    if not len(observed):
        raise ValueError(f"step {target:g} was not observed")
    return spectrum_.project(unit(len(s), int(observed[0])), rank)


def fit(
    coefficients: Array,
    steps: Steps,
    target: float,
    *,
    degree: int = 1,
    window: int | None = None,
) -> Fit:
    """Fit one coefficient series (T,) by a polynomial of ``degree`` over the window."""
    s = np.asarray(steps, dtype=np.float64)
    inside = in_window(s, window)
    H = least_squares_rows(s, [*s, target], degree=degree, window=window)
    values = H @ coefficients
    fitted, predicted = values[:-1], values[-1]
    residual = ((coefficients - fitted)[inside] ** 2).sum()
    total = ((coefficients[inside] - coefficients[inside].mean()) ** 2).sum()
    noise = (len(s) * np.finfo(np.float64).eps) ** 2 * (coefficients**2).sum()
    if total > noise:
        r2 = float(1 - residual / total)
    else:
        r2 = 1.0 if len(coefficients) and np.any(coefficients) else float("nan")
    return Fit(fitted, r2, float(predicted))


def squared_error(gram: Array, w: Array, j: int) -> float:
    """‖Mᵀw − δ_j‖² = (w − e_j)ᵀ G (w − e_j), in weight²: the error of predicting checkpoint j."""
    difference = w - unit(len(w), j)
    return max(float(difference @ gram @ difference), 0.0)


def path_length(gram: Array, steps: Steps) -> float:
    """Σ_t ‖θ_t − θ_{t−1}‖ with θ₀ the base, checkpoints in the order of their steps."""
    order = np.argsort(np.asarray(steps, dtype=np.float64), kind="stable")
    G = np.zeros((len(order) + 1, len(order) + 1))
    G[1:, 1:] = np.asarray(gram)[np.ix_(order, order)]
    squared = np.diag(G)[1:] + np.diag(G)[:-1] - 2 * np.diag(G, 1)
    return float(np.sqrt(np.maximum(squared, 0.0)).sum())


def straightness(gram: Array, steps: Steps) -> float:
    """‖θ_T − θ₀‖ / Σ_t ‖θ_t − θ_{t−1}‖: 1 on a line, about 1/√T in a random walk, NaN at rest."""
    last = int(np.asarray(steps, dtype=np.float64).argmax())
    length = path_length(gram, steps)
    return float(np.sqrt(max(gram[last, last], 0.0)) / length) if length > 0 else float("nan")


def backtest_skill(
    gram: Array,
    steps: Steps,
    ratio: float,
    *,
    rank: int = 1,
    degree: int = 1,
    window: int | None = None,
) -> float:
    """Skill of the method on what was already observed, at the extrapolation ratio r = s*/s_T.

    The method is fitted on the checkpoints up to step s_T / r, the last of them h, predicts the
    last observed checkpoint T, and is compared with standing still at h: 1 − ‖θ̂_T − θ_T‖² / ‖θ_h −
    θ_T‖². 1 is perfect, 0 is as good as standing still, below 0 is worse. NaN when fewer than
    ``degree + 1`` (at least 2) checkpoints lie before the cut, when r ≤ 1, or when nothing moved
    between h and T. ``window`` is shortened to the checkpoints before the cut.
    """
    s = np.asarray(steps, dtype=np.float64)
    last = int(s.argmax())
    # The slack: a step exactly at the cut s_T / r counts as before it.
    before = np.flatnonzero(s * ratio <= s[last] * (1 + 1e-12))
    if ratio <= 1 or len(before) < max(degree + 1, 2):
        return float("nan")
    w = np.zeros(len(s))
    w[before] = weights(
        spectrum(gram[np.ix_(before, before)]),
        s[before],
        float(s[last]),
        rank=rank,
        degree=degree,
        window=None if window is None else max(min(window, len(before)), degree + 1),
    )
    h = int(before[s[before].argmax()])
    stand_still = squared_error(gram, unit(len(s), h), last)
    return 1 - squared_error(gram, w, last) / stand_still if stand_still > 0 else float("nan")
