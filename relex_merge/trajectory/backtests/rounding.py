"""What storing checkpoints in 16 bits does to a trajectory, and to any verdict from weights.

A file keeps each weight to the nearest number of its dtype. Where updates are smaller than the
spacing of these numbers, most of what differs between two files is rounding: large in weights,
incoherent, and nothing to the model. Backtests in the space of weights then fail whatever the run
does. So the same backtests are run on a *control*: a perfectly straight run of the same length,
steps and distance, stored the same way. Where not even that would pass, weights cannot tell.

The control's G follows from what is known of a tensor, E = ‖δ_T‖² and ‖θ₀‖²:

* Neighbouring numbers around w are u = 2^(⌊log₂|w|⌋ − p) apart, p the stored bits of the mantissa.
  With log-uniform mantissas E[u²/w²] = 3/(8 ln 2) · 4⁻ᵖ, so S = Σ u² = 0.541 · 4⁻ᵖ ‖θ₀‖².
* A weight that truly moves by a changes by a whole number of u. With a uniform position between
  grid points the error of that change has the variance f(1 − f) u², f the fraction of a/u: a·u for
  small movements, u²/6 on average for large ones. Over weights that move by different amounts this
  is close to D(q) = S/6 · (1 − exp(−6 · 0.8 · √(q/S))), q = Σ a² the true squared distance and 0.8
  the mean |a| of a normal distribution over its root mean square. D is the squared error between
  two files whose models lie √q apart.
* The true distance q_T solves q_T + D(q_T) = E, and D(q_T) / E is the share of rounding. With
  x = s/s_T the control is G_ij = q_T x_i x_j + (D(q_T x_i²) + D(q_T x_j²) − D(q_T (x_i − x_j)²))/2.

On miniature runs of known truth the share came within 0.01 of the truth where base and checkpoints
were rounded alike, and the control's skill within the scatter of backtests
(``python -m tests.benchmarks.rounding_control``). A base that the trainer read from the same dtype
has no error of its own; the share is overestimated by up to a factor of two there, on the side of
"cannot tell".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from relex_merge.trajectory.backtests.backtest import backtests, plan
from relex_merge.trajectory.backtests.compared import method
from relex_merge.trajectory.backtests.error_law import ErrorLaw, fit_error_law
from relex_merge.trajectory.backtests.figures import figures
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.predictors.history import FEWEST_FITTED, before_cut

MANTISSA = {"bfloat16": 7, "float16": 10}  # stored bits
SPREAD = 3 / (8 * np.log(2))  # E[(2^⌊log₂|w|⌋ / w)²] with log-uniform mantissas
MEAN = 0.8  # mean |a| over its root mean square
BISECTIONS = 60


@dataclass(frozen=True)
class Rounding:
    """A straight run stored as these files are: what the verdict would see of it.

    Attributes:
        dtype: Of the files.
        share: Of ‖δ_T‖² that is rounding, 0 to 1.
        skill: Of the backtest at the user's own ratio; None where none is possible.
        straightness: As in the report.
        law: All of the control's backtests together; None where there are too few.
    """

    dtype: str
    share: float
    skill: float | None
    straightness: float
    law: ErrorLaw | None


def rounding_control(
    distances: Array,
    base_squared_norms: Array,
    steps: Array,
    dtype: str,
    parameters: Parameters,
    ratio: float,
) -> Rounding | None:
    """Backtest a straight run that is stored in ``dtype``.

    Args:
        distances: (N,) ‖δ_T‖² of N tensors.
        base_squared_norms: (N,) ‖θ₀‖²; NaN where unknown.
        steps: (T,) ascending.
        dtype: Of the files.
        parameters: Of most tensors; the control is continued by the line, whatever they name.
        ratio: target / s_T.

    Returns:
        None for files of other dtypes, and where norms are unknown or nothing moved.
    """
    bits, moving = MANTISSA.get(dtype), distances > 0
    norms = base_squared_norms[moving]
    if bits is None or not (moving.any() and np.isfinite(norms).all()):
        return None
    E, S = _pooled(distances[moving], SPREAD * 4.0**-bits * norms)
    moved = _true_distance(E, S)
    x = steps / steps[-1]
    far, between = _error(moved, S, x), _error(moved, S, np.abs(x[:, np.newaxis] - x))
    grams = moved[:, np.newaxis, np.newaxis] * np.outer(x, x)
    grams = grams + (far[:, :, np.newaxis] + far[:, np.newaxis, :] - between) / 2
    line = Parameters(
        parameters.target_step,
        rank=parameters.rank,
        window=parameters.window,
        anchor=parameters.anchor,
        scale=parameters.scale,
    )
    tests = backtests(grams, steps, plan(steps, ratio), [method([line])])
    cut = before_cut(steps, ratio)
    same = np.flatnonzero((tests.fitted == cut) & (tests.target == len(steps) - 1))
    same = same if cut >= FEWEST_FITTED else same[:0]
    skill = tests.pooled("method", int(same[0]), range(len(grams))) if len(same) else np.nan
    return Rounding(
        dtype=dtype,
        share=1 - float(moved.sum() / E.sum()),
        skill=float(skill) if np.isfinite(skill) else None,
        straightness=float(figures(grams.sum(axis=0)[np.newaxis], steps).straightness[0]),
        law=fit_error_law(tests),
    )


def _pooled(E: Array, S: Array) -> tuple[Array, Array]:
    """Lay tensors of about the same S/E (N,) end to end, a few for hundreds."""
    octave = np.round(np.log2(np.maximum(S / E, 2.0**-30)))
    same = octave == np.unique(octave)[:, np.newaxis]
    return same @ E, same @ S


def _error(moved: Array, S: Array, x: Array) -> npt.NDArray[np.float64]:
    """Return (N, …) D(q_T x²) for q_T and S (N,) and x (…)."""
    q, spacing = (v.reshape(-1, *[1] * x.ndim) for v in (moved, S))
    exponent = np.divide(q, spacing, out=np.full_like(q, np.inf), where=spacing > 0)
    with np.errstate(invalid="ignore"):
        decayed = np.where(x > 0, np.exp(-6 * MEAN * np.sqrt(exponent) * x), 1.0)
    return np.asarray(spacing / 6 * (1 - decayed))


def _true_distance(E: Array, S: Array) -> Array:
    """Return (N,) q_T with q_T + D(q_T) = E, by bisection."""
    low, high = np.zeros_like(E), E.copy()
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        below = middle + _error(middle, S, np.ones(1))[:, 0] < E
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return low
