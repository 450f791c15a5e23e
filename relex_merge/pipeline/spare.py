"""What OUT must not replace: the models that are read, and the files that they link to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from relex_merge.checkpoints.locate import local_folder
from relex_merge.errors import RelexError
from relex_merge.places.address import is_place, normal
from relex_merge.recipe.load import Recipe


def spare_sources(recipe: Recipe, out: Path) -> None:
    """Raise RelexError when replacing OUT would take something from a model that is read.

    A hard link is no reason: it keeps its file, whatever happens to other names of it.

    Args:
        recipe: names the models.
        out: absolute path of the output.
    """
    for reference in recipe.config.referenced_models():
        for part in (reference.model, reference.lora):
            folder = local_folder(part.path) if part else None
            if folder is None:
                continue
            if any(_lies_in(out, place) for place in _places(folder)):
                raise RelexError(f"{out} would replace {folder}, which is read; choose another OUT")
            for file in sorted(folder.rglob("*")):
                place = next((p for p in _places(file) if _lies_in(out, p)), None)
                if place is not None:
                    raise RelexError(
                        f"{out} would replace {place}, which {file} links to and which is read; "
                        "choose another OUT"
                    )


def spare_sources_in_place(recipe: Recipe, out: str) -> None:
    """Raise RelexError when replacing OUT in a place would delete a model that is read.

    Args:
        recipe: names the models.
        out: address of the output.
    """
    for reference in recipe.config.referenced_models():
        for part in (reference.model, reference.lora):
            if part and is_place(part.path) and f"{normal(part.path)}/".startswith(f"{out}/"):
                raise RelexError(f"{out} would replace {part.path}, which is read; choose another")


def _places(path: Path) -> Iterator[Path]:
    """Yield where a path leads: itself, and every link on the way."""
    yield path
    for _ in range(40):  # as many as Linux follows
        if not path.is_symlink():
            return
        path = path.parent / path.readlink()
        yield path


def _lies_in(out: Path, path: Path) -> bool:
    return (path.parent.resolve() / path.name).is_relative_to(out)
