"""Displacement from an anchor: θ_A + λ (θ̂(s*) − θ̂(s_T)), for any predictor.

``line`` anchors at the predictor's own value at the last observed step, θ̂(s_T); with λ = 1 that is
the plain prediction (RELEX). ``last`` anchors at the last observed checkpoint θ_T, ``average`` at
the mean of the last W checkpoints (weight averaging, as LAWA and WSM do it). In terms of w all
three are sums: w_A + λ (w(s*) − w(s_T)).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.predictors.history import FitParameters, History
from relex_merge.trajectory.predictors.registry import Predictor

ANCHORS = ("line", "last", "average")


def anchored(predictor: Predictor, anchor: str, scale: float) -> Predictor:
    """Return a predictor whose displacement from the last observed step is scaled.

    Args:
        predictor: what continues the coefficients.
        anchor: one of ``ANCHORS``.
        scale: λ; 1 with ``line`` returns the predictor as it is.
    """
    if anchor == "line" and scale == 1:
        return predictor
    return replace(predictor, rule=_Displacement(predictor, anchor, scale))


@dataclass(frozen=True)
class _Displacement:
    """The rule of an anchored predictor; equal ones are interchangeable."""

    predictor: Predictor
    anchor: str
    scale: float

    def __call__(self, history: History, targets: Array, fit: FitParameters) -> Array:
        """Return W (N, J, h); see the module text."""
        h = len(history.steps)
        W = self.predictor.rule(history, np.append(targets, history.steps[-1]), fit)
        here = W[:, -1:]
        start = here
        if self.anchor != "line":
            count = 1 if self.anchor == "last" else min(fit.window or h, h)
            start = np.zeros((1, 1, h))
            start[..., -count:] = 1 / count
        return np.asarray(start + self.scale * (W[:, :-1] - here))
