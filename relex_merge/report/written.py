"""What is written, seen along the whole model's first direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.predictors.history import History

POINTS = 24  # of the curve within the observed steps, and as many beyond


@dataclass(frozen=True)
class Written:
    """Coefficients along v, in weight.

    Attributes:
        predicted: of the model that is written, each tensor at its own target.
        curve: (J, 2) steps, ascending, the last observed one twice, and coefficients. Within the
            observed steps it is the predictor as it was fitted, beyond them what would be written
            there, anchored and scaled; the two meet where the anchor is the line. Empty for a
            reconstruction, which continues nothing.
    """

    predicted: float
    curve: Array


def written(
    grams: Array, steps: Array, parameters: Sequence[Parameters], c: Array, target: float
) -> Written:
    """Find v · (θ̂ − θ₀) for the model θ̂ that is written, and for those on the way to it.

    Every tensor is continued by its own parameters, anchored and scaled, along its own directions,
    and θ̂ is all of them laid end to end. With v = Mᵀc / ‖c‖² over all tensors,
    v · Σ_n M_nᵀ w_n = cᵀ Σ_n G_n w_n / ‖c‖².

    Args:
        grams: G (N, T, T) in weight².
        steps: (T,) ascending.
        parameters: One for each of the N tensors, their predictors chosen.
        c: (T,) coefficients of the checkpoints along v, in weight; all 0 where nothing moves.
        target: The step where the curve ends.
    """
    last = float(steps[-1])
    inside = np.linspace(float(steps[0]), last, POINTS)
    beyond = np.linspace(last, max(float(target), last), POINTS)
    size = float(c @ c) or 1.0
    continued = all(p.mode == "extrapolate" for p in parameters)
    curve, predicted = np.zeros(2 * POINTS), 0.0
    for each in set(parameters):
        rows = [i for i, own in enumerate(parameters) if own == each]
        history = History.of(grams[rows], steps)
        along = (c @ grams[rows])[:, np.newaxis] / size
        wanted = np.append(beyond, each.target_step) if continued else [each.target_step]
        found = (along * each.rule.predict(history, np.asarray(wanted))).sum(axis=(0, 2))
        predicted += float(found[-1])
        if continued:
            fitted = replace(each, anchor="line", scale=1.0).rule.predict(history, inside)
            curve += np.append((along * fitted).sum(axis=(0, 2)), found[:-1])
    if not continued:
        return Written(predicted, np.empty((0, 2)))
    return Written(predicted, np.stack([np.append(inside, beyond), curve], axis=1))
