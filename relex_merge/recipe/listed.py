"""The checkpoints that a recipe lists, in the order of their steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relex_merge.checkpoints.steps import step_of
from relex_merge.errors import RelexError
from relex_merge.recipe.load import Recipe
from relex_merge.recipe.names import ROLES
from relex_merge.recipe.schema import LARGEST_STEP, as_number


def steps_in_order(labels: Sequence[str], given: Sequence[float | None]) -> list[tuple[float, int]]:
    """Return (step, position) of every checkpoint, ascending.

    Args:
        labels: references; steps that are not given are read from them.
        given: the steps that the recipe writes out, None elsewhere.

    Raises:
        RelexError: a step cannot be told, is out of range, or occurs twice.
    """
    steps: dict[float, int] = {}
    for position, (label, step) in enumerate(zip(labels, given, strict=True)):
        found = step_of(label) if step is None else step
        if found is None:
            raise RelexError(
                f"cannot tell the step of {label}; say it in the recipe, with parameters: "
                "{step: N} under that model"
            )
        if not 0 <= found <= LARGEST_STEP:
            raise RelexError(f"{label}: step {found:g}; steps are numbers from 0 to 2^53")
        if found in steps:
            raise RelexError(
                f"{labels[steps[found]]} and {label} have the same step {found:g}; drop one, or "
                "correct it with parameters: {step: N}"
            )
        steps[float(found)] = position
    return sorted(steps.items())


def is_observed(role: object, label: str) -> bool:
    """Whether a checkpoint of this role enters the fit. Raises RelexError for an unknown role."""
    if role not in (None, *ROLES):
        raise RelexError(f"{label}: role is {role!r}; it can be {' or '.join(ROLES)}")
    return role != "holdout"


@dataclass(frozen=True)
class Listed:
    """A checkpoint as a recipe lists it.

    Attributes:
        reference: what is read; of ``base+adapter`` the adapter.
        step: of the run.
        observed: whether it enters the fit; else it is held out.
    """

    reference: str
    step: float
    observed: bool = True


def listed_checkpoints(recipe: Recipe) -> list[Listed]:
    """Return the checkpoints of a relex recipe in the order of their steps.

    The base, should it be listed among the models as mergekit allows, is left out.

    Raises:
        RelexError: steps cannot be told, or occur twice, or adapters are on another base.
    """
    base = recipe.config.base_model
    entries = [entry for entry in recipe.config.models or [] if entry.model != base]
    labels = [str(entry.model) for entry in entries]
    own = [entry.parameters or {} for entry in entries]
    given = [as_number(parameters.get("step")) for parameters in own]
    observed = [is_observed(p.get("role"), label) for p, label in zip(own, labels, strict=True)]
    read = [str(entry.model.lora or entry.model) for entry in entries]
    for entry in entries:
        if entry.model.lora and base and entry.model.model != base.model:
            raise RelexError(
                f"{entry.model} is an adapter on {entry.model.model}, but the recipe's base_model "
                f"is {base}; a series has one base"
            )
    return [Listed(read[i], s, observed[i]) for s, i in steps_in_order(labels, given)]
