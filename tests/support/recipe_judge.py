"""What must hold of every recipe, right or wrong: it is read, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

from relex_merge.errors import RelexError
from relex_merge.recipe.listed import listed_checkpoints
from relex_merge.recipe.load import load_recipe

SECONDS = 2.0
MEMORY = 200_000  # kB


def read_recipe(path: Path) -> str | None:
    """Read a recipe as every command does; return what is wrong with it, None for a good one."""
    try:
        recipe = load_recipe(path)
        recipe.to_yaml()
        if recipe.is_relex:
            listed_checkpoints(recipe)
    except RelexError as error:
        return str(error)
    return None


def assert_told_in_short(fault: str | None, text: bytes) -> None:
    """Assert that a recipe was read, or that what is wrong with it fits on a screen."""
    assert fault is None or (len(fault) < 6000 and fault.isprintable()), text[:2000]
