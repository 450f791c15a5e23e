"""What is said of something that was given in place of a recipe, and what to type instead."""

from __future__ import annotations

import difflib
import shlex
from pathlib import Path

from relex_merge.checkpoints.files import GRAM, RECIPE
from relex_merge.checkpoints.locate import local_folder
from relex_merge.errors import RelexError
from relex_merge.hub.references import hub_reference, may_be_on_hub

SUFFIXES = (".yml", ".yaml")


def write_one(series: object = "SERIES") -> str:
    """Return the command that writes the recipe of a series."""
    return f"relex-merge recipe {shlex.quote(str(series))} --target-step N -o recipe.yml"


def no_recipe(path: Path, error: OSError) -> str:
    """Say why there is no recipe at a path, and what was probably meant."""
    if local_folder(str(path)):
        if (path / RECIPE).is_file():
            return f"{path} is the folder of a model, not a recipe; its recipe is {path / RECIPE}"
        return (
            f"{path} is a folder, not a recipe; if it holds the checkpoints of a run, write their "
            f"recipe first: {write_one(path)}"
        )
    what = f"cannot read the recipe {path}: {error.strerror or error}"
    if not isinstance(error, FileNotFoundError):
        return what
    near = _near(path)
    if near is not None:
        return f"{what}; did you mean {near}?"
    name = str(path)
    on_hub = path.suffix not in SUFFIXES and "/" in name and may_be_on_hub(name)
    if on_hub and not hub_reference(name).folder:
        return f"{what}; if it is a series on the Hub, write its recipe first: {write_one(name)}"
    return f"{what}; write one with: {write_one()}"


def check_output(folder: Path) -> None:
    """Raise RelexError for a folder that is no output of a relex recipe."""
    if not (folder / GRAM).is_file():
        raise RelexError(
            f"{folder} has no {GRAM}: it is no output of a relex recipe; if it holds the "
            f"checkpoints of a run, write their recipe first: {write_one(folder)}"
        )


def _near(path: Path) -> Path | None:
    """Return the recipe in the same folder whose name is the most like this one."""
    try:
        there = sorted(p.name for p in path.parent.iterdir() if p.suffix in SUFFIXES)
    except (OSError, ValueError):
        return None
    found = difflib.get_close_matches(path.name, there, n=1, cutoff=0.75)
    return path.with_name(found[0]) if found else None
