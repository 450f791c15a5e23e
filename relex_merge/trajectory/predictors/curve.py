"""Predictors with one free shape: the step axis is bent, then a line is laid over it.

For N tensors c_k ≈ a_k x(s) + b_k with the same x for all components of a tensor. Given the shape
of x this is linear least squares, so only the shape is searched for (variable projection, Golub &
Pereyra 1973), by what it leaves of the leading coefficients.

* ``power``: c(s) ≈ a s^p + b with p in 0 … 1, from log s over √s to the line. The axis is Box and
  Cox's (s^p − 1)/p (J. R. Stat. Soc. B 26, 1964), which is log s at p = 0, so that the limit is
  part of the family. Steps must be above 0.
* ``saturating``: c(s) ≈ c∞ (1 − e^{−s/τ}): what is left to learn decays at a constant rate, the
  path of gradient flow in a quadratic well from the base at s = 0 to its bottom. τ → ∞ is the line
  through the base.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from relex_merge.trajectory.gram import Array, in_window
from relex_merge.trajectory.predictors.history import FitParameters, History
from relex_merge.trajectory.predictors.minimise import minimise

_LOGARITHM = 1e-6  # below this exponent the axis is log s to the last digit that counts


@dataclass(frozen=True)
class Curve:
    """A family of bent step axes.

    Attributes:
        axis: (steps in units of the last, shape (N, 1) or ()) → x, broadcast.
        grid: Shapes to begin the search with, ascending; its ends bound the search.
        offset: Whether the line over x has a constant, or goes through the base.
    """

    axis: Callable[[Array, Array], Array]
    grid: Array
    offset: bool


def _box_cox(s: Array, p: Array) -> Array:
    logarithm = np.log(s)
    safe = np.maximum(p, _LOGARITHM)
    return np.where(p < _LOGARITHM, logarithm, np.expm1(safe * logarithm) / safe)


def _decay(s: Array, log_rate: Array) -> Array:
    rate = np.exp(log_rate)
    return np.asarray(-np.expm1(-rate * s) / rate)


POWER = Curve(_box_cox, np.linspace(0.0, 1.0, 21), offset=True)
SATURATING = Curve(_decay, np.linspace(np.log(1e-3), np.log(1e2), 47), offset=False)  # log(s_T / τ)


def power(history: History, targets: Array, fit: FitParameters) -> Array:
    """Continue the leading coefficients as a·s^p + b, W (N, J, h)."""
    return _continue(POWER, exponent(history, fit), history, targets, fit)


def exponent(history: History, fit: FitParameters) -> Array:
    """Return (N,) the fitted p of ``power``."""
    return _fit_shape(POWER, history, fit)


def saturating(history: History, targets: Array, fit: FitParameters) -> Array:
    """Continue the leading coefficients as c∞ (1 − e^{−s/τ}), W (N, J, h)."""
    log_rate = np.log(history.steps[-1] / time_constant(history, fit))
    return _continue(SATURATING, log_rate, history, targets, fit)


def time_constant(history: History, fit: FitParameters) -> Array:
    """Return (N,) the fitted τ of ``saturating`` in steps, 0.01 to 1000 times the last step."""
    return np.asarray(history.steps[-1] / np.exp(_fit_shape(SATURATING, history, fit)))


def _fit_shape(curve: Curve, history: History, fit: FitParameters) -> Array:
    """Return (N,) the shape that leaves least of the leading coefficients in the window."""
    s = history.steps
    inside = in_window(s, fit.window)
    found = history.spectra
    c = (found.vectors * np.sqrt(found.eigenvalues)[:, np.newaxis, :])[:, inside, : fit.rank]
    if curve.offset:
        c = c - c.mean(axis=1, keepdims=True)
    scaled = s[inside] / s[-1]

    def left_over(shape: Array) -> Array:
        x = np.broadcast_to(curve.axis(scaled, shape[..., np.newaxis]), c.shape[:2])
        if curve.offset:
            x = x - x.mean(axis=1, keepdims=True)
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        residual = c - x[:, :, np.newaxis] * (x[:, np.newaxis, :] @ c)
        return np.asarray((residual**2).sum(axis=(1, 2)))

    return minimise(left_over, curve.grid)


def _continue(
    curve: Curve, shape: Array, history: History, targets: Array, fit: FitParameters
) -> Array:
    """Return W (N, J, h) of lines over the axes bent by ``shape`` (N,)."""
    s = history.steps
    inside = in_window(s, fit.window)
    x = curve.axis(s[inside] / s[-1], shape[:, np.newaxis])
    at = curve.axis(np.asarray(targets, dtype=np.float64) / s[-1], shape[:, np.newaxis])
    centre = x.mean(axis=1, keepdims=True) if curve.offset else np.zeros((len(x), 1))
    x, at = x - centre, at - centre
    H = np.zeros((len(shape), at.shape[1], len(s)))
    slope = x / (x**2).sum(axis=1, keepdims=True)
    H[:, :, inside] = at[:, :, np.newaxis] * slope[:, np.newaxis, :]
    if curve.offset:
        H[:, :, inside] += 1 / x.shape[1]
    return history.spectra.project(H, fit.rank)
