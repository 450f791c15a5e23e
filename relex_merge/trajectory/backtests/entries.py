"""The parts of ``relex_report.json`` that the verdict reads and the choice writes, typed.

Undefined figures are None, never NaN: JSON has no NaN.
"""

from __future__ import annotations

import math
from typing import TypeAlias, cast

from typing_extensions import TypedDict


class WalkFigures(TypedDict):
    """What the verdict says of a random walk that was observed at the same steps."""

    explained_variance: float | None
    straightness: float | None


class ModelFigures(WalkFigures):
    """What the verdict looks at in the entry of the whole model."""

    backtest_skill: float | None
    end_speed: float | None
    curvature_chance: float | None
    moved: float


class ChoiceTrial(TypedDict):
    """A backtest as evidence: fitted up to step ``cut``, predicting ``step``."""

    cut: float
    step: float
    skill: float | None


class ChoiceCandidate(TypedDict):
    """What speaks for a predictor at the target: skills, and the backtests behind them."""

    expected: float | None
    low: float | None
    high: float | None
    same_ratio: float | None
    trials: list[ChoiceTrial]


class ChoiceGroup(TypedDict):
    """The predictor of some tensors, and every candidate by name."""

    predictor: str
    candidates: dict[str, ChoiceCandidate]


class ChoiceEntry(TypedDict):
    """The entry "choice": how a predictor was found where the recipe left it open.

    ``curve`` has a list for each :data:`Horizon`.
    """

    predictor: str
    scope: str
    target_step: float
    stops: bool
    reasons: list[str]
    groups: dict[str, ChoiceGroup]
    curve: list[list[float | str | None]]


# step, predictor, low and expected skill there
Horizon: TypeAlias = tuple[float, str, float | None, float | None]


def horizons(choice: ChoiceEntry) -> list[Horizon]:
    """Return the points of a choice's curve; JSON, which has no tuples, holds them as lists."""
    return [cast("Horizon", tuple(point)) for point in choice["curve"]]


def json_number(x: float | None) -> float | None:
    """Return ``x`` as JSON can hold it: None for NaN and infinities."""
    return float(x) if x is not None and math.isfinite(x) else None
