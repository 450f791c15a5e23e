"""Recipes: each is read or refused in one sentence, in two seconds and 200 MB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.endurance.campaign import Bench, Campaign, Trial
from tests.support.models import write_recipe
from tests.support.peak_memory import peak_memory
from tests.support.recipe_judge import MEMORY, SECONDS, read_recipe
from tests.support.recipe_mutations import RECIPES, mutated_recipe


@contextmanager
def _open(bench: Bench) -> Iterator[Trial]:
    path = bench.folder / "recipe.yml"
    for recipe in RECIPES:
        read_recipe(write_recipe(path, recipe))  # imports

    def trial(number: int) -> None:
        path.write_bytes(mutated_recipe(bench.seed, number))
        grown = peak_memory(lambda: read_recipe(path))
        assert grown < MEMORY, f"took {grown:,} kB"

    yield trial


CAMPAIGN = Campaign("recipes", "mutated recipes", 2_000, _open, slowest=SECONDS)
