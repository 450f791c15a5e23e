"""Small trajectories with explicit weights, and their reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from relex_merge.report import build_report
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics


@dataclass(frozen=True)
class Trajectory:
    """steps: (T,); base: name → (d,); deltas: name → (T, d), all float64."""

    steps: Array
    base: Mapping[str, Array]
    deltas: Mapping[str, Array]

    def statistics(self, T: int | None = None) -> SeriesStatistics:
        """Of the first T checkpoints."""
        tensors = {
            name: TensorStatistics(
                M[:T] @ M[:T].T,
                float(self.base[name] @ self.base[name]),
                int(np.count_nonzero(M[:T][-1])),
                M.shape[1],
            )
            for name, M in self.deltas.items()
        }
        return SeriesStatistics(self.steps[:T], tensors)

    def whole(self) -> Array:
        """(T, Σd): all tensors laid end to end."""
        return np.concatenate(list(self.deltas.values()), axis=1)


QWEN = (
    "model.embed_tokens.weight",
    *(
        f"model.layers.{layer}.{module}.weight"
        for layer in range(3)
        for module in ("self_attn.q_proj", "mlp.down_proj", "input_layernorm")
    ),
    "model.norm.weight",
)


def make(
    steps: Array,
    *,
    names: tuple[str, ...] = QWEN,
    law: float = 1.0,
    walk: float = 0.05,
    white: float = 0.02,
    d: int = 400,
    seed: int = 0,
) -> Trajectory:
    """Weights that move as s**law along one direction per tensor, plus a walk and white noise."""
    rng = np.random.default_rng(seed)
    x = steps / steps[-1]
    spans = np.sqrt(np.diff(np.append(0.0, x)))[:, np.newaxis]
    return Trajectory(
        steps,
        {name: rng.standard_normal(d) for name in names},
        {
            name: 0.01
            * (
                np.outer(x**law, rng.standard_normal(d))
                + walk * (spans * rng.standard_normal((len(x), d))).cumsum(axis=0)
                + white * rng.standard_normal((len(x), d))
            )
            for name in names
        },
    )


def report_of(
    statistics: SeriesStatistics,
    target: float,
    parameters: Mapping[str, Parameters] | Parameters | None = None,
    *,
    dtype: str = "float32",
    holdout: SeriesStatistics | None = None,
) -> Any:
    """The report with everything that is merely copied filled in, whatever a test reads of it."""
    shared = parameters if isinstance(parameters, Parameters) else Parameters(target)
    return build_report(
        statistics,
        parameters or shared,
        {
            "method": {
                "name": "relex",
                "rank": shared.rank,
                "degree": shared.degree,
                "window": shared.window,
                "mode": shared.mode,
                "predictor": shared.predictor,
                "anchor": shared.anchor,
                "scale": shared.scale,
            },
            "base": {"reference": "Qwen/Qwen2.5-Math-1.5B", "sha": None},
            "checkpoints": [
                {"reference": f"run@step_{s:g}", "step": float(s), "sha": None}
                for s in statistics.steps
            ],
            "versions": {"relex-merge": "0.1.0"},
        },
        target_step=target,
        dtype=dtype,
        holdout=holdout,
    )
