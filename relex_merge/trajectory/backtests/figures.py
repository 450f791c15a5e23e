"""The figures of a trajectory, for many tensors at once, from their Gram matrices.

Fields have one row per tensor. A group of tensors is described by the sum of its G's, which is the
G of the tensors laid end to end; a random walk by the G of
:mod:`relex_merge.trajectory.backtests.random_walk`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from relex_merge.trajectory.gram import Array, in_window, least_squares_rows
from relex_merge.trajectory.spectra import Spectra, eigenvalues, spectra

RANKS = 8


@dataclass(frozen=True)
class Figures:
    """Figures of N tensors over T checkpoints; R = min(T, 8). NaN where a tensor never moves.

    Attributes:
        explained_variance: (N, R) share of Σ‖δ_t‖² on the leading 1…R directions.
        step_explained_variance: (N, R) the same for the consecutive deltas θ_t − θ_{t−1}; one
            direction takes 1/T of a random walk and everything of a line.
        coefficients: (N, T) c_t along the first direction, in weight.
        straightness: (N,) ‖θ_T − θ₀‖ / Σ‖θ_t − θ_{t−1}‖; about 1/√T in a random walk.
        angle: (N,) degrees between the directions fitted on the first and the second half.
        curvature: Of the coefficients.
    """

    explained_variance: Array
    step_explained_variance: Array
    coefficients: Array
    straightness: Array
    angle: Array
    curvature: Curvature


@dataclass(frozen=True)
class Curvature:
    """Does a quadratic describe the coefficient better than a line?

    All NaN below five checkpoints, where leaving one out leaves a quadratic nothing to miss.

    Attributes:
        gain: (N,) 1 − (leave-one-out error of the quadratic) / (of the line).
        chance: (N,) how many standard errors the mean gain per checkpoint is above 0; above 2 is
            more than chance if residuals are independent (they are not quite: optimizer noise adds
            up).
        end_speed: (N,) speed dc/ds at the last checkpoint over the mean speed, by the quadratic: 1
            for a line, about 0.3 for c ∝ √s, 0 or less where the movement has stopped.
    """

    gain: Array
    chance: Array
    end_speed: Array


def figures(grams: Array, steps: Array) -> Figures:
    """Return the figures of G (N, T, T) at ``steps`` (T,) ascending."""
    spectra_ = spectra(grams)
    ranks = min(len(steps), RANKS)
    c = spectra_.coefficients()
    consecutive = _consecutive(grams)
    step_spectra = Spectra(eigenvalues(consecutive), spectra_.vectors)
    return Figures(
        explained_variance=spectra_.explained_variance(ranks),
        step_explained_variance=step_spectra.explained_variance(ranks),
        coefficients=c,
        straightness=_straightness(grams, consecutive),
        angle=_angle_of_halves(grams),
        curvature=_curvature(c, steps),
    )


def _consecutive(grams: Array) -> Array:
    """Return (N, T, T) the Gram matrix of θ_t − θ_{t−1}, with θ₀ the base."""
    padded = np.pad(grams, ((0, 0), (1, 0), (1, 0)))
    return np.diff(np.diff(padded, axis=1), axis=2)


def _straightness(grams: Array, consecutive: Array) -> Array:
    lengths = np.sqrt(np.maximum(np.einsum("ntt->nt", consecutive), 0.0)).sum(axis=1)
    last = np.sqrt(np.maximum(grams[:, -1, -1], 0.0))
    return np.asarray(last / np.where(lengths > 0, lengths, np.nan))


def _angle_of_halves(grams: Array) -> Array:
    """Return the degrees between v of checkpoints 1…T/2 and v of the rest, 0 to 90.

    v = Mᵀu/σ on each half, so cos = |u₁ᵀ G₁₂ u₂| / (σ₁ σ₂).
    """
    half = grams.shape[1] // 2
    first, second = spectra(grams[:, :half, :half]), spectra(grams[:, half:, half:])
    u1, u2 = first.vectors[:, :, 0], second.vectors[:, :, 0]
    product = np.einsum("ni,nij,nj->n", u1, grams[:, :half, half:], u2)
    scale = np.sqrt(first.eigenvalues[:, 0]) * np.sqrt(second.eigenvalues[:, 0])
    cosine = np.abs(product) / np.where(scale > 0, scale, np.nan)
    return np.asarray(np.degrees(np.arccos(np.minimum(cosine, 1.0))))


def _leave_one_out(c: Array, steps: Array, degree: int) -> Array:
    """Return (N, T) the squared error at each checkpoint of the polynomial fitted without it.

    e_i / (1 − A_ii) with the hat matrix A of the full fit (Allen's PRESS).
    """
    A = least_squares_rows(steps, steps, degree=degree)
    return np.asarray(((c - c @ A.T) / (1 - np.diag(A))) ** 2)


def _curvature(c: Array, s: Array) -> Curvature:
    if len(s) < 5:
        nothing = np.full(len(c), np.nan)
        return Curvature(nothing, nothing, nothing)
    c = _near_one(c)
    line, quadratic = _leave_one_out(c, s, 1), _leave_one_out(c, s, 2)
    gain = line - quadratic
    moving = line.sum(axis=1) > 0
    error = gain.std(axis=1, ddof=1) / np.sqrt(len(s))
    # The parabola's slope at its end, from three of its points.
    p0, p1, p2 = (c @ least_squares_rows(s, [s[0], (s[0] + s[-1]) / 2, s[-1]], degree=2).T).T
    covered = p2 - p0
    return Curvature(
        gain=gain.sum(axis=1) / np.where(moving, line.sum(axis=1), np.nan),
        chance=gain.mean(axis=1) / np.where(error > 0, error, np.nan),
        end_speed=(p0 - 4 * p1 + 3 * p2) / np.where(covered != 0, covered, np.nan),
    )


@dataclass(frozen=True)
class Fits:
    """Least-squares fits of N coefficient series c (N, T).

    Attributes:
        fitted: (N, T) at every observed step, also outside the window.
        r2: (N,) 1 − SS_res / SS_tot over the window; 1 where the series is constant up to rounding,
            NaN where it is 0.
        predicted: (N,) at the target step.
    """

    fitted: Array
    r2: Array
    predicted: Array


def fits(c: Array, steps: Array, target: float, *, degree: int, window: int | None) -> Fits:
    """Fit every series by a polynomial.

    Args:
        c: (N, T) coefficients.
        steps: (T,) ascending.
        target: A step.
        degree: Of the polynomial.
        window: How many of the last checkpoints enter; None for all.
    """
    H = least_squares_rows(steps, [*steps, target], degree=degree, window=window)
    values = c @ H.T
    unit = _near_one(c)
    inside = in_window(steps, window)
    residual = ((unit - unit @ H[:-1].T)[:, inside] ** 2).sum(axis=1)
    total = ((unit - unit[:, inside].mean(axis=1, keepdims=True))[:, inside] ** 2).sum(axis=1)
    moves = total > (len(steps) * np.finfo(np.float64).eps) ** 2 * (unit**2).sum(axis=1)
    constant = np.where(np.any(c, axis=1), 1.0, np.nan)
    r2 = np.where(moves, 1 - residual / np.where(moves, total, 1.0), constant)
    return Fits(values[:, :-1], r2, values[:, -1])


def _near_one(c: Array) -> Array:
    """Return each row of c (N, T) in units of a power of two that bring its largest number near 1.

    For squares and products that neither overflow nor vanish; no digit changes.
    """
    exponent = np.frexp(np.abs(c).max(axis=1, keepdims=True))[1]
    return np.asarray(np.ldexp(c, -exponent))
