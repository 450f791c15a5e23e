"""What is written, seen along the whole model's first direction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.predictors.history import History


def written_coefficient(
    grams: Array, steps: Array, parameters: Sequence[Parameters], c: Array
) -> float:
    """Return the coefficient of the model that is written, v · (θ̂ − θ₀).

    Every tensor is continued by its own parameters, to its own target, anchored and scaled, along
    its own directions, and θ̂ is all of them laid end to end. With v = Mᵀc / ‖c‖² over all tensors,
    v · Σ_n M_nᵀ w_n = cᵀ Σ_n G_n w_n / ‖c‖².

    Args:
        grams: G (N, T, T) in weight².
        steps: (T,) ascending.
        parameters: One for each of the N tensors, their predictors chosen.
        c: (T,) coefficients of the checkpoints along v, in weight.

    Returns:
        The coefficient in weight; 0 where nothing moves.
    """
    size = float(c @ c)
    if size == 0:
        return 0.0
    total = 0.0
    for each in set(parameters):
        rows = [i for i, own in enumerate(parameters) if own == each]
        target = np.asarray([each.target_step], np.float64)
        W = each.rule.predict(History.of(grams[rows], steps), target)[:, 0]
        total += float((c @ grams[rows] * W).sum())
    return total / size
