"""The arithmetic of a weight trajectory, all of it on T × T matrices in float64.

One tensor, base θ₀, checkpoints θ₁…θ_T at steps s₁…s_T, deltas δ_t = θ_t − θ₀ flattened to d
numbers and stacked as M (T × d). Everything here starts from the Gram matrix G = M Mᵀ (T × T) and
the steps; nothing here knows of tensors, files or devices.

A prediction is a weight vector w (T,) with θ̂ = θ₀ + Σ_t w_t δ_t = θ₀ + Mᵀw. Two facts carry the
package:

* M = Σ_k σ_k u_k v_kᵀ with G u_k = σ_k² u_k, and the coefficient of checkpoint t along v_k is
  c_k(t) = σ_k u_k(t) (RELEX, arXiv 2605.21468: SVD of the deltas from the base, not centred).
* A least-squares fit of any series y at the steps, read off at s*, is hᵀy with a row h that depends
  on the steps alone. Fitting each c_k and mapping back gives θ̂ = θ₀ + Σ_k (hᵀc_k) v_k, hence
  w = Σ_{k≤r} (hᵀu_k) u_k = P_r h: the least-squares row, projected on the r leading left singular
  vectors. No division by σ, no sign of u_k. With r = T it is per-weight least squares, w = h; with
  h = e_j it is the rank-r reconstruction of checkpoint j.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

_NOTHING = 1e-200

Array: TypeAlias = npt.NDArray[np.float64]
Steps: TypeAlias = Sequence[float] | Array


def in_window(steps: Steps, window: int | None) -> npt.NDArray[np.bool_]:
    """Return (T,) True for the last ``window`` steps; for all of them when ``window`` is None."""
    s = np.asarray(steps, dtype=np.float64)
    if window is None:
        return np.ones(len(s), dtype=bool)
    return np.asarray(s >= np.sort(s)[-window])


def least_squares_rows(
    steps: Steps, targets: Steps, *, degree: int = 1, window: int | None = None
) -> Array:
    """Return H (J, T) such that Hy is the polynomial fitted to y at ``steps``, read at ``targets``.

    Each row depends on the steps alone, sums to 1, and is 0 outside the window; it is also the
    weight vector of per-weight least squares. The step axis is centred and scaled first, so that
    neither its origin nor its unit matters.

    Args:
        steps: (T,) of the checkpoints, in any order.
        targets: (J,) steps.
        degree: Of the polynomial.
        window: How many of the last checkpoints enter; None for all.

    Raises:
        ValueError: The window holds fewer than ``degree + 1`` different steps.
    """
    s = np.asarray(steps, dtype=np.float64)
    inside = in_window(s, window)
    fitted_steps = s[inside]
    different = len(
        np.unique(fitted_steps)
    )  # whether LAPACK calls the rest singular, chance decides
    if different < degree + 1:
        raise ValueError(
            f"a fit of degree {degree} needs at least {degree + 1} checkpoints of different steps, "
            f"the window holds {different}"
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


def unit(T: int, j: int) -> Array:
    """Return e_j (T,), the w of checkpoint j itself; of the last one, "standing still"."""
    e = np.zeros(T)
    e[j] = 1.0
    return e


def two_point_line(steps: Steps, target: float) -> Array:
    """Return w (T,) of the line through base (step 0) and last checkpoint: (s*/s_T) e_T."""
    s = np.asarray(steps, dtype=np.float64)
    last = int(s.argmax())
    return np.asarray(unit(len(s), last) * (target / s[last]))


def squared_error(gram: Array, w: Array, j: int) -> float:
    """Return ‖Mᵀw − δ_j‖² = (w − e_j)ᵀ G (w − e_j), in weight²: how far w misses checkpoint j."""
    difference = w - unit(len(w), j)
    return max(float(difference @ gram @ difference), 0.0)


def symmetric(gram: Array) -> Array:
    """Return (G + Gᵀ) / 2 of G (…, T, T), in float64; a symmetric G comes back bit for bit.

    Products in float32 need not be symmetric to the last digit, and what reads one triangle must
    not contradict what reads both.
    """
    G = np.asarray(gram, dtype=np.float64)
    return np.asarray((G + G.swapaxes(-1, -2)) / 2)


def rescaled(grams: Array) -> Array:
    """Return G (N, T, T) in another unit, a power of four that brings the longest ‖δ_t‖² near 1.

    Predictions and skills do not depend on the unit, and this one spares their squares and
    products from overflow and underflow. No digit changes, but what is next to nothing beside the
    longest of all ‖δ_t‖² is nothing.
    """
    largest = np.einsum("ntt->nt", grams).max(initial=0.0)
    exponent = int(np.frexp(largest)[1])
    scaled = np.ldexp(grams, -2 * (exponent // 2))
    return np.where(np.abs(scaled) < _NOTHING, 0.0, scaled)
