"""Settling what a recipe leaves open: ``predictor: auto`` and ``target_step: auto``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from relex_merge.engine.plan import ModelPlan, NeedsMergekit
from relex_merge.errors import RelexError
from relex_merge.recipe.load import Recipe
from relex_merge.trajectory.backtests.automatic import resolve
from relex_merge.trajectory.backtests.results import Choice
from relex_merge.trajectory.statistics import SeriesStatistics

if TYPE_CHECKING:
    from relex_merge.pipeline.prepare import Prepared


class StoppedError(RelexError):
    """The answer is to stop at the last observed checkpoint."""


def is_open(plan: ModelPlan) -> bool:
    """Tell whether something is to be chosen before a weight can be written."""
    return any(p.is_open for tensor in plan.tensors for p in tensor.parameters or ())


def settle(
    prepared: Prepared, statistics: SeriesStatistics
) -> tuple[Prepared, list[Choice | None]]:
    """Return the run with concrete predictors, and for each target how they were chosen.

    Args:
        prepared: the run as the recipe has it.
        statistics: of its observed checkpoints.

    Raises:
        RelexError: no one choice can meet what the recipe asks for.
    """
    plan = prepared.plan
    results = [
        resolve({t.name: t.parameters[i] for t in plan.tensors if t.parameters}, statistics)
        for i in range(plan.targets)
    ]
    tensors = tuple(
        replace(t, parameters=tuple(result.parameters[t.name] for result in results))
        if t.parameters
        else t
        for t in plan.tensors
    )
    settled = replace(prepared, plan=replace(plan, tensors=tensors))
    return settled, [result.choice for result in results]


def refuse_auto(recipe: Recipe, reason: NeedsMergekit) -> None:
    """Raise RelexError where a recipe for mergekit's own path leaves the choice to this package."""
    if recipe.leaves_open:
        raise RelexError(
            f"{recipe.name} uses {reason}, which goes through mergekit's own path, one tensor at a "
            "time, and auto looks at the whole model first: leave that out, or give a target_step "
            "and scope: tensor, or name the predictor"
        ) from reason


def refuse_to_stop(choice: Choice | None) -> None:
    """Raise StoppedError where the choice is to stop at the last observed checkpoint."""
    if choice is not None and choice.stops:
        raise StoppedError(
            f"{choice.reasons[0]} Nothing was written; --yes writes the last observed checkpoint "
            "in its place"
        )
