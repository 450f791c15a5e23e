"""The recipe that won, ready for ``run``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from relex_merge.errors import RelexError, disk_errors

if TYPE_CHECKING:
    from relex_merge.recipe.load import Recipe
    from relex_merge.report.evaluation import ChosenEntry


def write_chosen(recipe: Recipe, chosen: ChosenEntry, file: Path) -> None:
    """Write the recipe with the target, scale and anchor that were chosen.

    Args:
        recipe: what was evaluated.
        chosen: of the evaluation.
        file: where to.

    Raises:
        RelexError: the last observed checkpoint won, or the file cannot be written.
    """
    if chosen["scale"] == 0:
        raise RelexError(
            "the last observed checkpoint won, so there is no recipe to write: "
            f"{' '.join(chosen['reasons'])}"
        )
    parameters = {
        **(recipe.settings.get("parameters") or {}),
        "target_step": chosen["target_step"],
        "anchor": chosen["anchor"],
        "scale": chosen["scale"],
    }
    text = yaml.safe_dump(
        {**recipe.settings, "parameters": parameters}, sort_keys=False, allow_unicode=True
    )
    with disk_errors(file):
        file.write_text(text, encoding="utf-8")
