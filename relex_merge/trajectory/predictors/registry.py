"""Every predictor by name, with what it needs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.predictors.basic import linear, local, reconstruct, sqrt, stay
from relex_merge.trajectory.predictors.curve import power, saturating
from relex_merge.trajectory.predictors.damped import damped
from relex_merge.trajectory.predictors.history import RANK_1, FitParameters, History, Rule

AUTO = "auto"  # not a predictor: chosen among them by relex_merge.trajectory.backtests.automatic


@dataclass(frozen=True)
class Predictor:
    """A rule from (G, steps, target) to w.

    Attributes:
        name: Its name in recipes and in the report's JSON.
        rule: The arithmetic.
        needs: The fewest checkpoints.
        positive: Whether steps must be above 0.
        fit: How coefficients are fitted.
        label: Its name for readers of a report.
    """

    name: str
    rule: Rule
    needs: int = 2
    positive: bool = False
    fit: FitParameters = RANK_1
    label: str = ""

    def with_fit(self, fit: FitParameters) -> Predictor:
        """Return the same predictor with coefficients fitted as ``fit`` says."""
        return replace(self, fit=fit)

    def is_enough(self, steps: Array) -> bool:
        """Return whether checkpoints at ``steps`` (h,) are enough."""
        return len(steps) >= self.needs and not (self.positive and steps[0] <= 0)

    def predict(self, history: History, targets: Array) -> Array:
        """Return W (N, J, h) for target steps (J,); N is 1 where W does not depend on G.

        A window or a rank wider than the history is shortened to it.
        """
        return self.rule(history, targets, self.fit.shortened(len(history.steps), self.needs))

    def weights(self, gram: Array, steps: Array, target: float) -> Array:
        """Return w (T,) with θ̂ = θ₀ + Σ_t w_t δ_t, for G (T, T) at ``steps`` (T,) ascending."""
        history = History.of(np.asarray(gram)[np.newaxis], steps)
        return np.asarray(self.predict(history, np.asarray([target], np.float64))[0, 0])


_ALL = (
    Predictor("linear", linear),
    Predictor("sqrt", sqrt, positive=True),
    Predictor("power", power, needs=3, positive=True),
    Predictor("saturating", saturating, needs=3),
    Predictor("local", local, needs=3),
    Predictor("damped", damped, needs=4),
    Predictor("stay", stay, needs=1),
)
PREDICTORS = {predictor.name: predictor for predictor in _ALL}
RECONSTRUCTION = Predictor("reconstruct", reconstruct, needs=1)  # of an observed checkpoint
