"""The index of a model's shards: which file holds which tensor."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from relex_merge.errors import RelexError


def read_places(path: Path, label: str) -> dict[str, str]:
    """Return tensor → shard from an index of shards.

    Args:
        path: the index.
        label: names the model in messages.

    Raises:
        RelexError: the file is no such index, or names files outside its folder.
    """
    try:
        index = json.loads(path.read_bytes().decode("utf-8"), object_pairs_hook=_unique)
        places = index["weight_map"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise RelexError(
            f"{label}: {path.name} is not readable as an index of shards; fetch it again"
        ) from error
    if not isinstance(places, dict) or not places:
        raise RelexError(f"{label}: {path.name} has no weight_map; fetch it again")
    suffix = Path(path.name.removesuffix(".index.json")).suffix
    for tensor, file in places.items():
        if not isinstance(file, str) or not file.endswith(suffix):
            raise RelexError(
                f"{label}: {path.name} puts {tensor} into {file!r}, which is no {suffix} file; "
                "fetch it again"
            )
        if Path(file).name != file or "\\" in file or "\0" in file:
            raise RelexError(f"{label}: the index names {file!r}, which lies outside its folder")
    return places


def check_there(places: Mapping[str, str], files: Collection[str], where: str) -> None:
    """Raise RelexError when a shard of an index is missing.

    Args:
        places: tensor → shard.
        files: the names of the files that there are.
        where: the model and the place that was searched, for the message.
    """
    for file in sorted({*places.values()}):
        if file not in files:
            raise RelexError(f"{where} has no shard {file}, which its index names; fetch it again")


def tensors_of(
    held: Mapping[str, Collection[str]], places: Mapping[str, str], label: str
) -> Iterator[tuple[str, str]]:
    """Yield the tensors of a model and the file that each comes from, in the order of the files.

    Args:
        held: file → the tensors in it.
        places: tensor → file, as the index has it; empty where there is none.
        label: names the model in messages.

    Raises:
        RelexError: a file lacks a tensor that the index promises.
    """
    for tensor, file in places.items():
        if tensor not in held[file]:
            raise RelexError(
                f"{label}: shard {file} lacks the tensor {tensor} that the index promises; fetch "
                "it again"
            )
    for file, tensors in held.items():
        for tensor in tensors:
            if places.get(tensor, file if not places else None) == file:
                yield tensor, file


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found
