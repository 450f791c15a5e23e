"""Checkpoints kept as folders of one revision: ``checkpoint-50``, as hub_strategy=all_checkpoints
pushes them, or ``global_step_50/actor/huggingface``, a verl run uploaded as it was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from relex_merge.checkpoints.files import has_fsdp_shards, is_model_folder, weights_among
from relex_merge.checkpoints.folders import is_beside
from relex_merge.checkpoints.grouping import Candidate
from relex_merge.checkpoints.names import Named, read_by
from relex_merge.checkpoints.series import Checkpoint
from relex_merge.hub.references import HubReference


@dataclass(frozen=True)
class Subfolders:
    """found: with their weights; faulty: folder → step, of those without; shards: of the faulty
    those that hold FSDP shards.
    """

    found: tuple[Candidate, ...]
    faulty: Mapping[str, int]
    shards: tuple[str, ...]


def from_subfolders(
    place: HubReference, sha: str, sizes: Mapping[str, int], pattern: re.Pattern[str] | None
) -> Subfolders:
    """Those below the place's folder. sizes: path in the repo → bytes, of every file."""
    top = f"{place.folder}/" if place.folder else ""
    folders: dict[str, dict[str, int]] = {}
    for path, size in sizes.items():
        folder, _, file = path.rpartition("/")
        if folder and path.startswith(top):
            folders.setdefault(folder, {})[file] = size
    found, faulty, shards = [], {}, []
    taken: set[str] = set()
    for folder in sorted(folders):
        files = folders[folder]
        name = folder.removeprefix(top)
        inside = any(folder.startswith(f"{other}/") for other in taken)
        if inside or (pattern is None and any(map(is_beside, name.split("/")))):
            continue
        named = read_by(pattern, name)
        if named is None or not (is_model_folder(files) or has_fsdp_shards(files)):
            continue
        candidate = _candidate(place, sha, folder, files, named)
        if candidate:
            found.append(candidate)
            taken.add(folder)
            continue
        faulty[folder] = named.step
        if has_fsdp_shards(files):
            shards.append(folder)
    return Subfolders(tuple(found), faulty, tuple(shards))


def _candidate(
    place: HubReference, sha: str, folder: str, files: Mapping[str, int], named: Named
) -> Candidate | None:
    weights = weights_among(files)
    if weights is None or set("@+") & set(folder):
        return None
    checkpoint = Checkpoint(
        named.step,
        str(HubReference(place.repo, folder, place.revision or "main")),
        "subfolders",
        sha=sha,
        size=sum(files[file] for file in weights.files),
        kind=weights.kind,
    )
    return Candidate(checkpoint, named.shape, named.family, named.guessed)
