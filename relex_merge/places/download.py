"""Files of a place on this disk: small ones for every run, whole models where ranges do not do.

They lie in a cache beside the Hub client's own, in a folder for each state of a model, so that a
file is brought here once. Nothing is believed of a file that is not as long as its store says.
"""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from relex_merge.errors import RelexError, disk_errors
from relex_merge.formatting import size
from relex_merge.places.pin import PlacePin
from relex_merge.places.together import together

_FILES = 8  # at a time
_WORTH_A_WORD = 100 * 2**20  # bytes
_LONG = 2**20  # bytes; a copy of more takes long enough for a file to change meanwhile

_LOG = logging.getLogger(__name__)


def cache_root(cache_dir: str | None = None) -> Path:
    """Return the folder of everything that this package keeps of places.

    Args:
        cache_dir: the cache that the user has named; None for the Hub client's home.
    """
    from huggingface_hub import constants

    return Path(cache_dir or constants.HF_HOME) / "relex-merge-places"


def folder_of(pinned: PlacePin, cache_dir: str | None = None) -> Path:
    """Return where the cache keeps a model's files; it is made when one is brought there."""
    return cache_root(cache_dir) / "read" / pinned.digest[:32]


def is_here(pinned: PlacePin, names: Sequence[str], cache_dir: str | None = None) -> bool:
    """Tell whether all of these files lie in the cache already."""
    folder = folder_of(pinned, cache_dir)
    return all(_is_whole(folder / name, pinned.states[name].size) for name in names)


def bring(pinned: PlacePin, names: Sequence[str], cache_dir: str | None = None) -> Path:
    """Bring files of a model to the cache, as far as they are missing, and return their folder.

    Args:
        pinned: the model.
        names: of its files.
        cache_dir: the cache that the user has named.

    Raises:
        RelexError: the place refuses, a file changed meanwhile, or the disk is full.
    """
    folder = folder_of(pinned, cache_dir)
    missing = [n for n in names if not _is_whole(folder / n, pinned.states[n].size)]
    nbytes = sum(pinned.states[name].size for name in missing)
    if nbytes > _WORTH_A_WORD:
        _LOG.warning("downloading %s of %s to %s", size(nbytes), pinned.place.address, folder)
    _copy_all(folder, pinned, missing)
    if nbytes > _LONG:
        _require_unchanged(folder, pinned, missing)
    return folder


def _require_unchanged(folder: Path, pinned: PlacePin, names: Sequence[str]) -> None:
    """Raise RelexError when files changed while they were copied, and keep none of them."""
    changed = pinned.changed(names)
    if changed:
        for name in names:
            (folder / name).unlink(missing_ok=True)
        raise RelexError(f"{changed} while it was read; run again when nothing else writes to it")


def drop(pinned: PlacePin, cache_dir: str | None = None) -> None:
    """Delete what the cache holds of a model."""
    shutil.rmtree(folder_of(pinned, cache_dir), ignore_errors=True)


def _copy_all(folder: Path, pinned: PlacePin, names: Sequence[str]) -> None:
    """Copy files of a model into a folder on this disk; errors as for :func:`bring`."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for inner in {(folder / name).parent for name in names}:
            inner.mkdir(parents=True, exist_ok=True)
    if names:
        together(lambda name: _copy(pinned, name, folder / name), names, _FILES)


def _copy(pinned: PlacePin, name: str, path: Path) -> None:
    """Copy one file, under another name until it is whole."""
    place, wanted = pinned.place, pinned.states[name].size
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")

    def get() -> None:
        try:
            place.files.get_file(place.below(name), str(part))
        except FileNotFoundError as error:
            raise RelexError(f"{place.address}/{name} is gone; run again") from error

    try:
        with disk_errors(path):
            place.ask(get)
        if not _is_whole(part, wanted):
            raise RelexError(
                f"{place.address}/{name} changed while it was read; run again when nothing else "
                "writes to it"
            )
        with disk_errors(path):
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _is_whole(path: Path, nbytes: int) -> bool:
    return path.is_file() and path.stat().st_size == nbytes
