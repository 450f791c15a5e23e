"""Checkpoints on the Hub: branches, tags, commits and folders of one revision."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relex_merge.checkpoints.files import (
    is_beside,
    is_model_folder,
    total,
    weights_among,
)
from relex_merge.checkpoints.grouping import Candidate
from relex_merge.checkpoints.notes import LeftOut, without_weights
from relex_merge.checkpoints.series import Checkpoint
from relex_merge.checkpoints.sharded import is_sharded
from relex_merge.checkpoints.steps import Named, read_by, read_title
from relex_merge.hub.references import HubReference

if TYPE_CHECKING:
    from huggingface_hub import GitCommitInfo, GitRefInfo


OUR_OUTPUTS = "relex-step-"  # what push calls an extrapolation by default


def from_refs(
    repo: str, layout: str, refs: Sequence[GitRefInfo], pattern: re.Pattern[str] | None
) -> list[Candidate]:
    """Return those with a step in their names. layout: ``branches`` or ``tags``."""
    found = []
    for ref in refs:
        named = None if ref.name.startswith(OUR_OUTPUTS) else read_by(pattern, ref.name)
        if named is not None:
            # A reference has one @, and a + joins an adapter to it.
            revision = ref.target_commit if set("@+") & set(ref.name) else ref.name
            checkpoint = Checkpoint(
                named.step, f"{repo}@{revision}", layout, sha=str(ref.target_commit)
            )
            found.append(Candidate(checkpoint, named.shape, named.family, named.guessed))
    return found


# How the Trainer ends the titles of commits that put optimizer and all into a folder; the model on
# top may still be that of an earlier step then.
_FOLDER_ONLY = ", checkpoint"


def from_commits(
    repo: str, commits: Sequence[GitCommitInfo], pattern: re.Pattern[str] | None
) -> list[Candidate]:
    """Return those whose titles say a step, or that the pattern finds; newest first, as listed."""
    found = []
    for commit in commits:
        named = read_by(pattern, commit.title) if pattern else read_title(commit.title)
        beside = pattern is None and commit.title.endswith(_FOLDER_ONLY)
        if named is not None and not beside:
            checkpoint = Checkpoint(
                named.step,
                f"{repo}@{commit.commit_id}",
                "commits",
                sha=commit.commit_id,
                date=commit.created_at.replace(microsecond=0).isoformat(),
            )
            found.append(Candidate(checkpoint, f'"{named.shape}"', named.family))
    return found


@dataclass(frozen=True)
class Subfolders:
    """The folders of a revision that are called by a step.

    Attributes:
        found: those with weights.
        faulty: step and folder of those without.
    """

    found: tuple[Candidate, ...]
    faulty: tuple[tuple[int, LeftOut], ...]


def from_subfolders(
    place: HubReference, sha: str, sizes: Mapping[str, int | None], pattern: re.Pattern[str] | None
) -> Subfolders:
    """Return the folders below the place's own. sizes: path in the repo → bytes, of every file."""
    top = f"{place.folder}/" if place.folder else ""
    folders: dict[str, dict[str, int | None]] = {}
    for path, size in sizes.items():
        folder, _, file = path.rpartition("/")
        if folder and path.startswith(top):
            folders.setdefault(folder, {})[file] = size
    found: list[Candidate] = []
    faulty: list[tuple[int, LeftOut]] = []
    taken: set[str] = set()
    for folder in sorted(folders):
        files = folders[folder]
        name = folder.removeprefix(top)
        inside = any(folder.startswith(f"{other}/") for other in taken)
        if inside or (pattern is None and any(map(is_beside, name.split("/")))):
            continue
        named = read_by(pattern, name)
        if named is None or not (is_model_folder(files) or is_sharded(files)):
            continue
        candidate = _candidate(place, sha, folder, files, named)
        if candidate:
            found.append(candidate)
            taken.add(folder)
        else:
            faulty.append((named.step, LeftOut(folder, folder, files, _fault(folder, files))))
    return Subfolders(tuple(found), tuple(faulty))


def _fault(folder: str, files: Collection[str]) -> str:
    """Say why a folder is no checkpoint that a recipe could name."""
    sign = next((sign for sign in "@+" if sign in folder), None)
    if sign:
        return f"its path has {sign!r} in it, which mergekit takes for a revision or an adapter"
    return without_weights(files)


def _candidate(
    place: HubReference, sha: str, folder: str, files: Mapping[str, int | None], named: Named
) -> Candidate | None:
    weights = weights_among(files)
    if weights is None or set("@+") & set(folder):
        return None
    checkpoint = Checkpoint(
        named.step,
        str(HubReference(place.repo, folder, place.revision or "main")),
        "subfolders",
        sha=sha,
        size=total(files[file] for file in weights.files),
        kind=weights.kind,
    )
    return Candidate(checkpoint, named.shape, named.family, named.guessed)
