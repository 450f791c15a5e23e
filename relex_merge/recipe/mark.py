"""What two recipes have in common that extrapolate the same series in the same way."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relex_merge.recipe.load import Recipe

CANDIDATE = ("target_step", "scale", "anchor")  # what candidates of one evaluation differ in


def method_mark(recipe: Recipe) -> str:
    """Return a hash of all that a recipe asks for but target step, scale and anchor.

    What was measured on candidates of one recipe holds for another one only with the same mark.
    """
    parameters = {
        name: value
        for name, value in (recipe.settings.get("parameters") or {}).items()
        if name not in CANDIDATE
    }
    asked = {**recipe.settings, "parameters": parameters}
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()
