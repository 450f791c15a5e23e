"""The continuations that a report compares: rules that turn a fitted stretch into a prediction.

A continuation is a function (spectra of the fitted checkpoints, their steps, target steps) → W
(N, J, h), the weight vectors of J predictions for N tensors; N is 1 where W does not depend on G.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from relex_merge.predictor import Predictor
from relex_merge.report.spectra import Spectra
from relex_merge.trajectory import Array, least_squares_rows, two_point_line

Rule = Callable[[Spectra, Array, Array], Array]


@dataclass(frozen=True)
class Continuation:
    """key: its name in the JSON; label: its name for readers; needs: fewest checkpoints to fit."""

    key: str
    label: str
    needs: int
    rule: Rule


def relex(rank: int, degree: int, window: int | None) -> Rule:
    """The method: the leading ``rank`` coefficients, each continued by a polynomial.

    A window or a rank wider than the checkpoints at hand is shortened to them.
    """

    def rule(fitted: Spectra, steps: Array, targets: Array) -> Array:
        inside = None if window is None else max(min(window, len(steps)), degree + 1)
        rows = least_squares_rows(steps, targets, degree=degree, window=inside)
        return fitted.project(rows, min(rank, len(steps)))

    return rule


def per_weight_least_squares(fitted: Spectra, steps: Array, targets: Array) -> Array:
    """A line through every weight on its own: w = h, from the steps alone."""
    return least_squares_rows(steps, targets)[np.newaxis]


def line_from_base(fitted: Spectra, steps: Array, targets: Array) -> Array:
    """The line through the base and the last fitted checkpoint (Miaow-Lab/RLVR-Linearity)."""
    return np.stack([two_point_line(steps, target) for target in targets])[np.newaxis]


def method(predictors: Sequence[Predictor]) -> Continuation:
    """What the recipe asks for: the predictor of each of the N tensors, in their order."""
    shapes = [(p.rank, p.degree, p.window) for p in predictors]
    rows = {shape: [i for i, s in enumerate(shapes) if s == shape] for shape in set(shapes)}

    def rule(fitted: Spectra, steps: Array, targets: Array) -> Array:
        W = np.empty((len(predictors), len(targets), len(steps)))
        for shape, members in rows.items():
            W[members] = relex(*shape)(fitted.rows(members), steps, targets)
        return W

    return Continuation("method", "this recipe", max(2, *(p.degree + 1 for p in predictors)), rule)


def baselines(rank: int) -> tuple[Continuation, ...]:
    """The five that every report shows side by side; ``rank`` is that of the rank-r one."""
    return (
        Continuation("linear", "rank-1 linear", 2, relex(1, 1, None)),
        Continuation("rank_r", f"rank-{rank} linear", 2, relex(rank, 1, None)),
        Continuation("quadratic", "rank-1 quadratic", 3, relex(1, 2, None)),
        Continuation("least_squares", "per-weight least squares", 2, per_weight_least_squares),
        Continuation("two_point", "two-point line", 1, line_from_base),
    )
