"""A recipe checked without mergekit, whose import takes seconds, and without the Hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from relex_merge.checkpoints.locate import check_reference
from relex_merge.hub.download import reading
from relex_merge.recipe.braces import expand_braces
from relex_merge.recipe.load import read_settings
from relex_merge.recipe.names import METHOD, TargetStep

if TYPE_CHECKING:
    from relex_merge.recipe.load import RecipeSource


def check_ahead(
    source: RecipeSource, *, target_step: TargetStep | None = None, scale: float | None = None
) -> None:
    """Check a recipe, and that the local folders which it names are there.

    Args:
        source: a path, the YAML structure, or a recipe that was loaded before.
        target_step: replaces the recipe's own.
        scale: replaces the recipe's own.

    Raises:
        RelexError: the message names the faulty key, parameter or reference.
    """
    settings = read_settings(source, target_step=target_step, scale=scale)
    if settings["merge_method"] == METHOD:
        for reference in _references(settings):
            check_reference(reference)


def check_hub(source: RecipeSource, *, target_step: TargetStep | None = None) -> None:
    """Raise RelexError where a recipe that was checked needs the Hub, and the Hub does not answer.

    It is asked once, for its front page, and not in offline mode.
    """
    settings = read_settings(source, target_step=target_step)
    series = settings.get("series") or {}
    named = [*_references(settings), series.get("repo") or series.get("folder")]
    repos = (check_reference(name) for name in named if name)
    repo = next(filter(None, repos), None) if settings["merge_method"] == METHOD else None
    if repo is not None:
        with reading(repo):
            pass


def _references(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the base and the models under ``models``, brace ranges expanded."""
    listed = [settings.get("base_model")]
    listed += [entry.get("model") for entry in settings.get("models") or []]
    for reference in listed:
        if isinstance(reference, str) and "+" not in reference:  # of base+adapter mergekit knows
            yield from expand_braces(reference)
