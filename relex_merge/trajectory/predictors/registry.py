"""Every predictor by name, with what it needs and when to use it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.predictors.basic import linear, local, sqrt, stay
from relex_merge.trajectory.predictors.damped import damped
from relex_merge.trajectory.predictors.history import History, Rule, of_one
from relex_merge.trajectory.predictors.power import power
from relex_merge.trajectory.predictors.saturating import saturating

AUTO = "auto"  # not a predictor: chosen among them by relex_merge.choice


@dataclass(frozen=True)
class Entry:
    """A predictor. needs: fewest checkpoints; positive: whether steps must be above 0;
    about: when to use it, in a line.
    """

    name: str
    function: Callable[..., Array]
    about: str
    needs: int = 2
    positive: bool = False

    def fits(self, steps: Array) -> bool:
        """Whether checkpoints at ``steps`` (h,) are enough."""
        return len(steps) >= self.needs and not (self.positive and steps[0] <= 0)

    def rule(self, rank: int = 1, window: int | None = None, degree: int = 1) -> Rule:
        """The predictor with its parameters; a window or a rank wider than the checkpoints at hand
        is shortened to them.
        """

        def rule(history: History, targets: Array) -> Array:
            fewest = max(degree + 1, self.needs)
            inside = None if window is None else max(min(window, len(history.steps)), fewest)
            more = {"degree": degree} if self.name == "linear" else {}
            wide = min(rank, len(history.steps))
            return self.function(history, targets, rank=wide, window=inside, **more)

        return rule

    def weights(
        self,
        gram: Array,
        steps: Array,
        target: float,
        *,
        rank: int = 1,
        window: int | None = None,
        degree: int = 1,
    ) -> Array:
        """w (T,) for G (T, T) at ``steps`` (T,) ascending."""
        W = self.rule(rank, window, degree)(of_one(gram, steps), np.asarray([target], np.float64))
        return np.asarray(W[0, 0])


_ALL = (
    Entry("linear", linear, "small learning rate, large batches: the paper's regime"),
    Entry("sqrt", sqrt, "runs that slow down steadily", positive=True),
    Entry("power", power, "runs that slow down at an unknown rate", needs=3, positive=True),
    Entry("saturating", saturating, "runs that come to rest", needs=3),
    Entry("local", local, "a warm-up or another change inside the window", needs=3),
    Entry("damped", damped, "a line that backtests show to overshoot", needs=4),
    Entry("stay", stay, "the last observed checkpoint, unchanged", needs=1),
)
PREDICTORS = {entry.name: entry for entry in _ALL}


def weights(
    name: str,
    gram: Array,
    steps: Array,
    target: float,
    *,
    rank: int = 1,
    window: int | None = None,
    degree: int = 1,
) -> Array:
    """w (T,) float64 of the predictor ``name`` with θ̂ = θ₀ + Σ_t w_t δ_t.

    gram: G (T, T); steps: (T,) ascending; target: a step.
    """
    return PREDICTORS[name].weights(gram, steps, target, rank=rank, window=window, degree=degree)
