"""The parameters of each tensor, kept in the report where the recipe alone does not tell them.

mergekit's gradients give a tensor values by its place in the model, and a finished output does not
say which place that was. So that ``inspect OUT`` judges what was written, the report of such a run
lists its parameters and the tensors that have them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any, Final, cast

from relex_merge.engine.plan import Settings
from relex_merge.errors import RelexError
from relex_merge.recipe.load import Recipe
from relex_merge.recipe.names import TargetStep
from relex_merge.recipe.variant import Variant
from relex_merge.report.contents import ParametersEntry, Report
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters

KEY: Final = "parameters"


def with_parameters(
    report: Report, recipe: Recipe, steps: Array, asked: Mapping[str, Parameters]
) -> Report:
    """Return the report, with the parameters of each tensor where the recipe does not tell them.

    Args:
        report: of the trajectory.
        recipe: what was run.
        steps: the observed steps, (T,).
        asked: name of a tensor → its parameters.
    """
    if _by_name(recipe, steps, asked, 0.0) == asked:
        return report
    groups: dict[Parameters, list[str]] = {}
    for name, parameters in asked.items():
        groups.setdefault(parameters, []).append(name)
    listed = [{**asdict(parameters), "tensors": names} for parameters, names in groups.items()]
    report[KEY] = cast("list[ParametersEntry]", listed)
    return report


def recall(
    report: Report,
    recipe: Recipe,
    steps: Array,
    names: Iterable[str],
    target_step: TargetStep | None = None,
) -> dict[str, Parameters]:
    """Return the parameters of each tensor of a finished output.

    Args:
        report: of the output.
        recipe: of the output, with ``target_step`` if one is given.
        steps: the observed steps, (T,).
        names: the tensors.
        target_step: replaces the one that was asked for.

    Raises:
        RelexError: the parameters do not fit the series, or are not known.
    """
    names = list(names)
    if KEY not in report:
        found = _by_name(recipe, steps, names, 0.0)
        if found is None or found != _by_name(recipe, steps, names, 1.0):
            raise RelexError(
                f"{recipe.name} has gradients, and the report beside it does not say what they were"
                " for each tensor; inspect the recipe, or run it again with --reuse"
            )
        return found
    try:
        listed = {
            name: Parameters(
                **{k: v for k, v in cast("Mapping[str, Any]", group).items() if k != "tensors"}
            )
            for group in report[KEY]
            for name in group["tensors"]
        }
        found = {name: listed[name] for name in names}
    except (TypeError, KeyError) as error:
        raise RelexError(f"the report beside {recipe.name} has no readable {KEY}") from error
    if target_step is not None:
        auto = isinstance(target_step, str)
        target = float(steps[-1]) if isinstance(target_step, str) else target_step
        found = {
            name: replace(parameters, target_step=target, auto_target=auto)
            for name, parameters in found.items()
        }
    for parameters in set(found.values()):
        parameters.check(steps)
    return found


def _by_name(
    recipe: Recipe, steps: Array, names: Iterable[str], t: float
) -> dict[str, Parameters] | None:
    """Return what the recipe asks for at position t in [0, 1]; None where it cannot be said."""
    settings = Settings(recipe, [Variant()], steps)
    try:
        return {name: settings.parameters(name, t)[0] for name in names}
    except RelexError:  # in parts of the recipe (slices, modules) that only mergekit resolves
        return None
