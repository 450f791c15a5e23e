"""The model folders below a folder, each with its weights checked as far as their headers go."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from relex_merge.checkpoints.complete import BrokenWeightsError, dtype_of
from relex_merge.checkpoints.configs import read_json
from relex_merge.checkpoints.files import (
    INDEXES,
    Weights,
    has_fsdp_shards,
    is_model_folder,
    weights_among,
)

_DEEPEST = 6  # folders, as in checkpoints/project/run/global_step_1/actor/huggingface
# What trainers keep beside the policy: no part of its series unless a pattern asks for it.
_BESIDE = {"critic", "_critic", "reward", "reward_model", "ref", "reference"}
_OF_OTHERS = {"node_modules", "wandb", "__pycache__"}


@dataclass(frozen=True)
class ModelFolder:
    """A folder that holds a model, or should.

    name: relative to the folder searched, POSIX; sizes: file → bytes; fault: why it cannot be
    read, None when it is whole.
    """

    path: Path
    name: str
    sizes: Mapping[str, int]
    weights: Weights | None = None
    dtype: str | None = None
    fault: str | None = None


def is_beside(name: str) -> bool:
    """Whether a folder of this name is no part of a series."""
    return name.lower() in _BESIDE | _OF_OTHERS or name.startswith(".")


def model_folders(root: Path, *, everything: bool) -> Iterator[ModelFolder]:
    """Every model folder below ``root`` and ``root`` itself, in the order of the names.

    everything: also what trainers keep beside the policy, such as a critic.
    """
    waiting: list[tuple[Path, tuple[Path, ...]]] = [(root, ())]
    while waiting:
        path, above = waiting.pop()
        real, depth = path.resolve(), len(above)
        if real in above:  # a symbolic link in a circle
            continue
        sizes, below = _listing(path)
        found = None
        if is_model_folder(sizes) or has_fsdp_shards(sizes):
            found = _look_into(root, path, sizes)
            yield found
        if depth == _DEEPEST or (found and depth and not found.fault):
            continue  # what lies inside a checkpoint belongs to it
        waiting += [
            (path / name, (*above, real))
            for name in sorted(below, reverse=True)
            if everything or not is_beside(name)
        ]


def _listing(path: Path) -> tuple[dict[str, int], list[str]]:
    """File → bytes, and the names of the folders; nothing where it may not be read."""
    sizes, folders = {}, []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append(entry.name)
                elif entry.is_file():
                    sizes[entry.name] = entry.stat().st_size
    except OSError:
        return {}, []
    return sizes, folders


def _look_into(root: Path, path: Path, sizes: Mapping[str, int]) -> ModelFolder:
    """A model folder with its weights checked as far as their headers go."""
    name = path.relative_to(root).as_posix()
    weights = weights_among(sizes)
    if weights is None:
        what = "FSDP shards only" if has_fsdp_shards(sizes) else "no weights"
        return ModelFolder(path, name, sizes, fault=what)
    missing = [file for file in _indexed(path, sizes) if file not in sizes]
    if missing:
        return ModelFolder(
            path, name, sizes, weights, fault=f"no {missing[0]}, which its index names"
        )
    try:
        dtype = dtype_of(path, weights.files)
    except BrokenWeightsError as error:
        return ModelFolder(path, name, sizes, weights, fault=str(error))
    return ModelFolder(path, name, sizes, weights, dtype)


def _indexed(path: Path, sizes: Mapping[str, int]) -> list[str]:
    """The shards that an index names."""
    index = next((file for file in INDEXES if file in sizes), None)
    places = read_json(path / index).get("weight_map") if index else None
    return sorted(set(map(str, places.values()))) if isinstance(places, dict) else []
