"""Whether a checkpoint is complete: from names, headers and ends of files; no weight is read."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

from relex_merge.checkpoints.complete import TEMPORARY
from relex_merge.checkpoints.configs import config_name
from relex_merge.checkpoints.files import INDEXES, Weights
from relex_merge.checkpoints.tensors import BrokenWeightsError, dtype_of
from relex_merge.publishing.contents import names_of

_SHARD = re.compile(r".+-\d+-of-(\d+)\.(safetensors|bin)")


def missing_part(folder: Path, weights: Weights) -> str | None:
    """What a checkpoint lacks, or None when it is whole.

    Whole means: no temporary file, a configuration, JSON files that parse, every safetensors file
    as long as its header says, every ``.bin`` with the directory at its end, and of shards all that
    the index names, with the index.
    """
    names = names_of(folder, weights)
    temporary = [p.name for p in folder.iterdir() if p.is_file() and TEMPORARY.fullmatch(p.name)]
    if temporary:
        return f"{temporary[0]} is a file that is being written"
    if config_name(weights.kind) not in names:
        return f"it has no {config_name(weights.kind)}"
    for name in names:
        if name.endswith(".json") and not _parses(folder / name):
            return f"{name} is no whole JSON file"
    return _missing_shard(folder, weights, names) or _broken(folder, weights)


def _parses(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


def _missing_shard(folder: Path, weights: Weights, names: tuple[str, ...]) -> str | None:
    """transformers writes the index after the shards, other writers before them."""
    index = next((name for name in INDEXES if name in names), None)
    if index is not None:
        places = json.loads((folder / index).read_text(encoding="utf-8")).get("weight_map") or {}
        missing = sorted({str(file) for file in places.values()} - set(weights.files))
        return f"{missing[0]} is not there, which {index} names" if missing else None
    shard = next((match for file in weights.files if (match := _SHARD.fullmatch(file))), None)
    if shard and int(shard[1]) > 1:
        return f"{shard[0]} is a shard, and there is no index"
    return None


def _broken(folder: Path, weights: Weights) -> str | None:
    try:
        dtype_of(folder, weights.files)
    except BrokenWeightsError as error:
        return str(error)
    for file in weights.files:
        if file.endswith(".bin") and not zipfile.is_zipfile(folder / file):
            return f"{file} is not whole"
    return None
