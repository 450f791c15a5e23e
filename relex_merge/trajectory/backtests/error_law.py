"""From backtests to the skill that can be expected at the target.

A backtest at the user's own ratio r = s*/s_T has only the first T/r checkpoints to fit on, the real
extrapolation has all T: in the paper's setting (75 observed, r = 13.3) that is five against
seventy-five, and noise that drowns five checkpoints averages out over seventy-five. Backtests at
smaller ratios see more checkpoints but not the distance. So all of them are taken together, fitted
on h and predicting j, through one law for the error relative to standing still,

    log(‖θ̂_j − θ_j‖² / ‖θ_h − θ_j‖²) = a + b log(s_j / s_h) + c log s_h,

which is read at the ratio that is asked for and h = T. Its parts are what limits an extrapolation:
a path that bends or slows down costs more the further it is continued (b > 0, a scale-free law such
as √s has c = 0); noise costs less the longer the window (white noise around a line c = −3, a random
walk on top of one c = −1); a direction that turns costs more the later it is (c > 0). Least squares
over some fifty backtests gives a, b, c and how far they can be trusted. Those that predict late
checkpoints resemble the task most and weigh most; how much was chosen on the tuning seeds of
``tests/benchmarks/calibrate_verdict.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from relex_merge.trajectory.backtests.backtest import Backtests
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.predictors.history import FEWEST_FITTED

FEWEST_BACKTESTS = 6
_HOPELESS = 700.0  # log error beyond which the skill would no longer be a number
LATENESS = 8  # a backtest of checkpoint j weighs (s_j / s_T) to this power


@dataclass(frozen=True)
class ErrorLaw:
    """The law fitted to the backtests of one model.

    Attributes:
        law: (3,) a, b, c with s_h in units of s_T.
        covariance: (3, 3) of the law.
        scatter: Residual standard deviation of one backtest, in log error.
        narrowest: The smallest ratio that was backtested.
        widest: The largest one.
    """

    law: Array
    covariance: Array
    scatter: float
    narrowest: float
    widest: float

    def log_error(self, ratio: float) -> tuple[float, float]:
        """Return mean and standard deviation of log(error / standing still) at ``ratio``.

        That is the error of a fit on all T checkpoints.
        """
        x = np.asarray([1.0, np.log(ratio), 0.0])
        variance = float(x @ self.covariance @ x) + self.scatter**2
        return float(x @ self.law), float(np.sqrt(variance))

    def skill(self, ratio: float, deviations: float = 0.0) -> float:
        """Return the expected skill at ``ratio``, ``deviations`` of them to the better."""
        mean, deviation = self.log_error(ratio)
        return float(1 - np.exp(min(mean - deviations * deviation, _HOPELESS)))


def fit_error_law(tests: Backtests, name: str = "method") -> ErrorLaw | None:
    """Fit the error law of a predictor to its backtests; None when there are too few.

    Args:
        tests: Of every tensor; their errors are summed.
        name: Of the predictor.
    """
    steps = tests.steps
    error, still = tests.errors[name].sum(axis=0), tests.still.sum(axis=0)
    usable = (tests.fitted >= FEWEST_FITTED) & (error > 0) & (still > 0)
    usable &= np.isfinite(error) & np.isfinite(still)
    if np.count_nonzero(usable) < FEWEST_BACKTESTS:
        return None
    y = np.log(error[usable] / still[usable])
    fitted_step = steps[tests.fitted[usable] - 1] / steps[-1]
    X = np.stack([np.ones(len(y)), np.log(tests.ratio[usable]), np.log(fitted_step)], axis=1)
    weight = (steps[tests.target[usable]] / steps[-1]) ** LATENESS
    inverse = np.linalg.pinv(X.T @ (weight[:, np.newaxis] * X))
    law = inverse @ X.T @ (weight * y)
    effective = weight.sum() ** 2 / (weight**2).sum()
    variance = float((weight * (y - X @ law) ** 2).sum() / weight.sum())
    variance *= effective / max(effective - X.shape[1], 1.0)
    ratios = tests.ratio[usable]
    return ErrorLaw(
        law=law,
        covariance=inverse * variance,
        scatter=float(np.sqrt(variance)),
        narrowest=float(ratios.min()),
        widest=float(ratios.max()),
    )
