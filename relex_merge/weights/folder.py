"""The weights of a model folder on this disk, in whichever format they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from relex_merge.checkpoints.files import Weights, require_weights
from relex_merge.errors import RelexError
from relex_merge.weights.files import FileMark, FileSource
from relex_merge.weights.pickle import PickleSource
from relex_merge.weights.safetensors import SafetensorsSource


def open_folder(folder: Path, label: str, files: Sequence[str] = ()) -> FileSource:
    """Open the weights of a folder; headers are read, and no number.

    Args:
        folder: the folder.
        label: names the model in messages.
        files: the files to open; by default those of the model in the folder, found as mergekit
            finds them: safetensors first, by an index of shards where there is one.

    Raises:
        RelexError: there are no weights, or they are not whole.
    """
    places: Mapping[str, str] = {}
    if not files:
        weights = _weights_of(folder, label)
        files, places = weights.files, weights.places
    kind = SafetensorsSource if files[0].endswith(".safetensors") else PickleSource
    return kind(folder, label, files, places)


def mark_files(folder: Path, label: str) -> list[FileMark]:
    """Return the states in which the weight files of a folder are, without opening them.

    Args:
        folder: the folder of a model that something else is going to read.
        label: names the model in messages.

    Raises:
        RelexError: there are no weights, or one of the files is missing.
    """
    files = _weights_of(folder, label).files
    try:
        return [FileMark.of(folder / file, (folder / file).stat()) for file in files]
    except OSError as error:
        raise RelexError(f"{error.filename} cannot be read ({error.strerror})") from error


def _weights_of(folder: Path, label: str) -> Weights:
    """Return the weight files of a model folder, by its index where it has one."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise RelexError(f"{label}: {folder} cannot be read ({error.strerror})") from error
    return require_weights(names, folder, label)
