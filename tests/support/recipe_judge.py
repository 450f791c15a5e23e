"""What must hold of every recipe, right or wrong: it is read, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

from relex_merge.recipe.listed import listed_checkpoints
from relex_merge.recipe.load import load_recipe
from tests.support.refusal import refusal

SECONDS = 2.0
MEMORY = 200_000  # kB


def read_recipe(path: Path) -> str | None:
    """Read a recipe as every command does; return what is wrong with it, None for a good one."""

    def read() -> None:
        recipe = load_recipe(path)
        recipe.to_yaml()
        if recipe.is_relex:
            listed_checkpoints(recipe)

    return refusal(read)
