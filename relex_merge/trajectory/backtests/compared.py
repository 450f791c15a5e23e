"""The continuations that a report compares: rules that turn a fitted stretch into a prediction.

A continuation is a :data:`~relex_merge.trajectory.predictors.history.Rule`: (history of the fitted
checkpoints, target steps) → W (N, J, h), the weight vectors of J predictions for N tensors; N is 1
where W does not depend on G. Those of a name in ``PREDICTORS`` are the predictors themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from relex_merge.trajectory.gram import Array, least_squares_rows, two_point_line
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.predictors import PREDICTORS
from relex_merge.trajectory.predictors.history import History, Rule


@dataclass(frozen=True)
class Continuation:
    """key: its name in the JSON; label: its name for readers; needs: fewest checkpoints to fit;
    positive: whether their steps must be above 0.
    """

    key: str
    label: str
    needs: int
    rule: Rule
    positive: bool = False

    def fits(self, steps: Array) -> bool:
        """Whether checkpoints at ``steps`` (h,) are enough."""
        return len(steps) >= self.needs and not (self.positive and steps[0] <= 0)


def per_weight_least_squares(fitted: History, targets: Array) -> Array:
    """A line through every weight on its own: w = h, from the steps alone."""
    return least_squares_rows(fitted.steps, targets)[np.newaxis]


def line_from_base(fitted: History, targets: Array) -> Array:
    """The line through the base and the last fitted checkpoint (Miaow-Lab/RLVR-Linearity)."""
    return np.stack([two_point_line(fitted.steps, target) for target in targets])[np.newaxis]


def method(parameters: Sequence[Parameters]) -> Continuation:
    """What the recipe asks for: the parameters of each of the N tensors, in their order."""
    shapes = [(p.predictor, p.rank, p.window, p.degree) for p in parameters]
    rows = {shape: [i for i, s in enumerate(shapes) if s == shape] for shape in set(shapes)}

    def rule(fitted: History, targets: Array) -> Array:
        if len(rows) == 1:
            name, rank, window, degree = shapes[0]
            return PREDICTORS[name].rule(rank, window, degree)(fitted, targets)
        W = np.empty((len(parameters), len(targets), len(fitted.steps)))
        for (name, rank, window, degree), members in rows.items():
            each = PREDICTORS[name].rule(rank, window, degree)
            W[members] = each(fitted.rows(members), targets)
        return W

    names = [PREDICTORS[p.predictor] for p in parameters]
    needs = max(2, *(p.degree + 1 for p in parameters), *(entry.needs for entry in names))
    positive = any(entry.positive for entry in names)
    return Continuation("method", "this recipe", needs, rule, positive)


def baselines(rank: int) -> tuple[Continuation, ...]:
    """The five that every report shows side by side; ``rank`` is that of the rank-r one."""
    linear = PREDICTORS["linear"]
    return (
        Continuation("linear", "rank-1 linear", 2, linear.rule()),
        Continuation("rank_r", f"rank-{rank} linear", 2, linear.rule(rank)),
        Continuation("quadratic", "rank-1 quadratic", 3, linear.rule(degree=2)),
        Continuation("least_squares", "per-weight least squares", 2, per_weight_least_squares),
        Continuation("two_point", "two-point line", 1, line_from_base),
    )


def others(rank: int) -> tuple[Continuation, ...]:
    """Every predictor beside the line, at ``rank``; standing still is the yardstick itself."""
    return tuple(
        named(entry.name, rank) for entry in PREDICTORS.values() if entry.name not in _SHOWN
    )


def named(name: str, rank: int, window: int | None = None) -> Continuation:
    """A predictor as a continuation."""
    entry = PREDICTORS[name]
    return Continuation(
        name, f"rank-{rank} {name}", entry.needs, entry.rule(rank, window), entry.positive
    )


_SHOWN = ("linear", "stay")
