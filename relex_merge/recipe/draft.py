"""From a series to a recipe: which steps, which base, which target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from relex_merge.checkpoints.base_model import check, own_config
from relex_merge.checkpoints.configs import MisfitError
from relex_merge.checkpoints.hub_details import config_of, detail_of, look_into
from relex_merge.checkpoints.json_files import Json
from relex_merge.checkpoints.locate import local_folder
from relex_merge.checkpoints.notes import rounding
from relex_merge.checkpoints.observe import or_share, select
from relex_merge.checkpoints.series import Base, Checkpoint, Series
from relex_merge.errors import RelexError
from relex_merge.places.address import is_place, normal
from relex_merge.recipe.braces import MOST
from relex_merge.recipe.write import recipe_text


@dataclass(frozen=True)
class Draft:
    """A recipe and what it was made from.

    Attributes:
        series: with what was looked up and noted on the way.
        chosen: the observed checkpoints, ascending by step.
        base: the model that the run started from.
        target_step: the step to extrapolate to.
        text: the recipe, YAML.
    """

    series: Series
    chosen: tuple[Checkpoint, ...]
    base: Base
    target_step: float
    text: str


def draft(
    series: Series,
    *,
    base: str | None = None,
    target_step: float | None = None,
    observe: str | None = None,
    cache_dir: str | None = None,
    progress: Callable[[int], Callable[[], object]] = lambda total: lambda: None,
) -> Draft:
    """Write the recipe for a series.

    Args:
        series: what was found.
        base: the model that the run started from; by default the one that the series proposes.
        target_step: the step to extrapolate to; by default the end of the run.
        observe: as for :func:`relex_merge.checkpoints.observe.select`; by default all steps.
        cache_dir: the Hub's cache.
        progress: given how many checkpoints are looked into, returns what is called after each.

    Raises:
        RelexError: the series is too short or too long, names no base, or the base does not fit.
    """
    steps = select(series.steps, observe, series.last_step) if observe else series.steps
    if len(steps) > MOST:
        raise RelexError(
            f"{series.source} has {len(steps):,} checkpoints, and a recipe takes {MOST:,} at most; "
            f"choose some with --observe {steps[0]}-{steps[-1]}:10, for example"
        )
    series = look_into(series, steps, cache_dir, progress)
    settled = _base(series, base)
    wanted = set(steps)
    chosen = tuple(
        c for c in series.checkpoints if c.step in wanted and c.reference != settled.reference
    )
    if len(chosen) < 2:
        raise RelexError(
            f"{series.source}: {len(chosen)} checkpoint{'s' * (len(chosen) != 1)} observed; a "
            f"trajectory needs at least two besides the base{or_share(observe)}{_remarks(series)}"
        )
    narrow = rounding(chosen[-1].dtype) if chosen[-1].kind == "model" else []
    series = series.noting(*_check_base(series, settled, chosen[0], cache_dir), *narrow)
    target, why = _target(series, chosen, target_step)
    return Draft(series, chosen, settled, target, recipe_text(series, chosen, settled, target, why))


def _base(series: Series, given: str | None) -> Base:
    if given is not None:
        if is_place(given):
            return Base(normal(given))
        folder = local_folder(given)
        return Base(str(folder.resolve()) if folder else given)
    if series.base is None:
        raise RelexError(
            f"{series.source} does not say which model the run started from (looked at the model "
            "card's base_model, config.json's _name_or_path and adapter_config.json's "
            f"base_model_name_or_path); give it with --base MODEL{_remarks(series)}"
        )
    return series.base


def _remarks(series: Series) -> str:
    return "".join(f"\nnote: {note}" for note in series.notes)


def _check_base(
    series: Series, base: Base, first: Checkpoint, cache_dir: str | None
) -> Sequence[str]:
    """Return notes on a base that could not be looked at. Raises RelexError when it misfits."""
    own: Json = {}
    if first.kind == "model" and first.sha:
        own = config_of(detail_of(first), cache_dir)
    elif first.kind == "model":
        own = own_config(first.reference, cache_dir)
    try:
        check(base.reference, first.reference, own, cache_dir)
    except MisfitError:
        raise
    except RelexError as error:
        if base.found_in is None:
            raise
        return [f"the base that {base.found_in} names could not be looked at: {error}"]
    proposed = series.base
    if first.kind == "adapter" and base.found_in is None and proposed is not None:
        names = {PurePosixPath(one.reference).name for one in (base, proposed)}
        if len(names) > 1:
            return [f"{proposed.found_in} names another base: {proposed.reference}"]
    return []


def _target(
    series: Series, chosen: Sequence[Checkpoint], given: float | None
) -> tuple[float, str | None]:
    """Return the target step and, when it was not given, why it is this one."""
    if given is not None:
        return given, None
    last = series.last_step
    if last > series.steps[-1]:
        return last, "the end of the run by max_steps in trainer_state.json"
    why = "the last step seen in the series"
    if last == chosen[-1].step:
        why += ", which is observed: set the step to extrapolate to"
    return last, why
