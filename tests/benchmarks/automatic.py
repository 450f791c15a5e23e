"""What ``predictor: auto`` makes of a series, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from relex_merge.trajectory.backtests.automatic import CANDIDATES, choose
from relex_merge.trajectory.backtests.results import STAY
from relex_merge.trajectory.gram import Array, unit
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.statistics import SeriesStatistics


@dataclass(frozen=True)
class Tried:
    """What the observed checkpoints say of one target.

    chosen: by ``auto``; best: of the candidates but ``stay``, the one with the best predicted
    skill. predicted: candidate → the worse of its two witnesses; low: candidate → the law's lower
    bound; same_ratio: candidate → skill of its backtest at the target's own ratio; NaN where there
    is none. weights: "linear", "auto" and
    ``best`` → tensor → w (T,).
    """

    chosen: str
    best: str
    predicted: dict[str, float]
    low: dict[str, float]
    same_ratio: dict[str, float]
    weights: dict[str, dict[str, Array]]


def try_out(observed: SeriesStatistics, target: float, scope: str = "model") -> Tried:
    """Choose for ``target`` from the observed checkpoints alone."""
    choice = choose(observed, target, scope=scope)
    candidates = next(iter(choice.groups.values())).candidates

    def number(skill: float | None) -> float:
        return float("nan") if skill is None else skill

    predicted = {c.name: number(c.skill) for c in candidates}
    best = max(CANDIDATES, key=lambda name: np.nan_to_num(predicted[name], nan=-np.inf))
    wanted = {
        "linear": dict.fromkeys(observed.tensors, "linear"),
        "auto": choice.names,
        best: dict.fromkeys(observed.tensors, best),
    }
    return Tried(
        chosen=choice.name,
        best=best,
        predicted=predicted,
        low={c.name: number(c.low) for c in candidates},
        same_ratio={c.name: number(c.same_ratio) for c in candidates},
        weights={label: _weights(observed, names, target) for label, names in wanted.items()},
    )


def _weights(
    observed: SeriesStatistics, names: Mapping[str, str], target: float
) -> dict[str, Array]:
    last = unit(len(observed.steps), len(observed.steps) - 1)
    return {
        tensor: last
        if names[tensor] == STAY
        else Parameters(target, predictor=names[tensor]).weights(each.gram, observed.steps)
        for tensor, each in observed.tensors.items()
    }


def true_skill(whole: SeriesStatistics, W: Mapping[str, Array], target: float) -> float:
    """1 − ‖θ̂ − θ_j‖² / ‖θ_T − θ_j‖² over the model, j the real checkpoint at ``target``.

    W: tensor → w (T,) over the first T checkpoints of ``whole``.
    """
    j = int(np.flatnonzero(whole.steps == target)[0])
    errors = np.zeros(2)
    for name, w in W.items():
        gram = whole.tensors[name].gram
        for i, each in enumerate((w, unit(len(w), len(w) - 1))):
            missed = -unit(len(gram), j)
            missed[: len(w)] += each
            errors[i] += missed @ gram @ missed
    return float(1 - errors[0] / errors[1])
