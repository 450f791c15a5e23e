"""How far tensors made with a sampled G are from those that the exact G would have given.

The weight vector w of a tensor follows from its G, and with G from a sample it varies. Leaving out
one group of the sample's cells after the other gives w_r, and ‖(w_r − w)ᵀM‖² = (w_r − w)ᵀ G (w_r −
w) says what that does to the tensor, with no further look at a weight. The jackknife's factor
(R − 1)/R makes of their sum the expected squared error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from relex_merge.trajectory.backtests.rounding import SPREAD
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.sampling.estimate import Sampled

STORED_BITS = {"bfloat16": 7, "float16": 10, "float32": 23, "float64": 52}  # of the mantissa


@dataclass(frozen=True)
class OutputErrors:
    """Norms over all written tensors, in weight.

    Attributes:
        error: of the difference from what the exact G would have given, expected.
        update: of what is added to the base.
        rounding: of what rounding to the output's dtype changes, expected.
    """

    error: float
    update: float
    rounding: float


def output_errors(
    sampled: Sampled, parameters: Mapping[str, Parameters], dtypes: Mapping[str, str]
) -> OutputErrors:
    """Estimate the error of written tensors.

    Args:
        sampled: the sample that their weight vectors were computed from.
        parameters: tensor → its own.
        dtypes: tensor → dtype in the output ("bfloat16").
    """
    whole, steps = sampled.statistics().tensors, sampled.steps
    w = {name: p.weights(whole[name].gram, steps) for name, p in parameters.items()}
    error, count = 0.0, 0
    for replicate in sampled.replicates():
        count += 1
        for name, p in parameters.items():
            moved = p.weights(replicate.tensors[name].gram, steps) - w[name]
            error += float(moved @ whole[name].gram @ moved)
    update = sum(float(w[name] @ whole[name].gram @ w[name]) for name in parameters)
    rounding = sum(
        SPREAD * 4.0 ** -STORED_BITS[dtypes[name]] / 12 * whole[name].base_squared_norm
        for name in parameters
    )
    return OutputErrors(
        float(np.sqrt(max(error * (count - 1) / count, 0.0))),
        float(np.sqrt(max(update, 0.0))),
        float(np.sqrt(max(rounding, 0.0))),
    )
