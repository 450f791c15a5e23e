"""The reasons for a choice, in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from relex_merge.trajectory.backtests.results import Candidate
from relex_merge.trajectory.predictors import PREDICTORS


def too_few(T: int, fewest: int) -> str:
    """T checkpoints, where a choice needs ``fewest``."""
    return (
        f"{T} checkpoints are too few to choose by: a choice needs at least {fewest}. Observe "
        f"more, or name a predictor (one of {', '.join(PREDICTORS)})."
    )


def nothing_supported(last: float, names: Sequence[str]) -> str:
    """No step beyond ``last`` is supported."""
    which = f"predictor: {names[0]}" if len(names) == 1 else "any predictor"
    return (
        f"No step beyond the last observed one, {last:g}, has clearly positive predicted skill "
        f"under {which}: stop there."
    )


def refusal(
    candidates: Sequence[Candidate], widest: float | None, ratio: float, target: float
) -> str:
    """Why standing still was chosen. widest: the furthest ratio that was backtested."""
    known = [c for c in candidates if c.skill is not None]
    if not known:
        reach = "there are too few backtests" if widest is None else f"none reaches {ratio:.3g}×"
        return (
            f"Nothing that was backtested speaks for step {target:g} ({reach}): the last observed "
            "checkpoint is kept. Choose a nearer target, or name a predictor."
        )
    best = max(known, key=lambda c: c.skill or 0.0)
    return (
        f"No predictor is clearly expected to come closer to step {target:g} than the last "
        f"observed checkpoint (the best, {best.name}: {_figures(best)}): it is kept."
    )


def praise(best: Candidate, candidates: Sequence[Candidate], target: float) -> str:
    """Why ``best`` was chosen."""
    text = f"{best.name} has the best backtests for step {target:g} ({_figures(best)})"
    line = next((c for c in candidates if c.name == "linear" and c.skill is not None), None)
    ahead = [c for c in candidates if (c.skill or -np.inf) > (best.skill or 0.0)]
    if best.name != "linear":
        return f"{text}; the line: {_figures(line)}." if line else f"{text}."
    if ahead:
        rival = max(ahead, key=lambda c: c.skill or 0.0)
        return (
            f"linear keeps its place for step {target:g} ({_figures(best)}): "
            f"{rival.name} ({_figures(rival)}) is not clearly better."
        )
    return f"{text}."


def _figures(candidate: Candidate) -> str:
    same = (
        ""
        if candidate.same_ratio is None
        else f", {candidate.same_ratio:+.2f} in the backtest at that ratio"
    )
    return f"expected skill {candidate.expected:+.2f}{same}"
