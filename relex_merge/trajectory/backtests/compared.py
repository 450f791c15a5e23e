"""The predictors that a report compares: the recipe's own, the baselines, and all the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.predictors import PREDICTORS, FitParameters, Predictor
from relex_merge.trajectory.predictors.basic import line_from_base, per_weight_least_squares
from relex_merge.trajectory.predictors.history import History


def method(parameters: Sequence[Parameters]) -> Predictor:
    """Return what the recipe asks for, as one predictor of N tensors.

    Args:
        parameters: Of each of the N tensors, in their order.
    """
    asked = [
        p.rule if p.mode == "extrapolate" else PREDICTORS[p.predictor].with_fit(p.fit)
        for p in parameters
    ]
    rows = {each: [i for i, other in enumerate(asked) if other == each] for each in set(asked)}

    def rule(history: History, targets: Array, _: FitParameters) -> Array:
        if len(rows) == 1:
            return asked[0].predict(history, targets)
        W = np.empty((len(asked), len(targets), len(history.steps)))
        for predictor, tensors in rows.items():
            W[tensors] = predictor.predict(history.rows(tensors), targets)
        return W

    return Predictor(
        "method",
        rule,
        needs=max(2, *(each.fit.degree + 1 for each in rows), *(each.needs for each in rows)),
        positive=any(each.positive for each in rows),
        label="this recipe",
    )


def baselines(rank: int) -> tuple[Predictor, ...]:
    """Return the five that every report shows side by side; ``rank`` is that of the rank-r one."""
    linear = replace(PREDICTORS["linear"], label="rank-1 linear")
    return (
        linear,
        replace(linear, name="rank_r", fit=FitParameters(rank), label=f"rank-{rank} linear"),
        replace(
            linear,
            name="quadratic",
            needs=3,
            fit=FitParameters(degree=2),
            label="rank-1 quadratic",
        ),
        Predictor("least_squares", per_weight_least_squares, label="per-weight least squares"),
        Predictor("two_point", line_from_base, needs=1, label="two-point line"),
    )


def others(rank: int) -> tuple[Predictor, ...]:
    """Return every predictor beside the line, at ``rank``; standing still is the yardstick."""
    return tuple(
        replace(predictor, fit=FitParameters(rank), label=f"rank-{rank} {name}")
        for name, predictor in PREDICTORS.items()
        if name not in ("linear", "stay")
    )
