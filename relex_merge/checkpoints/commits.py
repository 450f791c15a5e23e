"""Checkpoints kept as commits on one branch, as transformers' Trainer and TRL push them.

Each save is a commit, "Training in progress, step 500", so the commit is the revision.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from relex_merge.checkpoints.grouping import Candidate
from relex_merge.checkpoints.names import read_by
from relex_merge.checkpoints.series import Checkpoint

if TYPE_CHECKING:
    from huggingface_hub import GitCommitInfo

# How the Trainer ends the titles of commits that put optimizer and all into a folder; the model on
# top may still be that of an earlier step then.
_FOLDER_ONLY = ", checkpoint"


def from_commits(
    repo: str, commits: Sequence[GitCommitInfo], pattern: re.Pattern[str] | None
) -> list[Candidate]:
    """Those whose titles say a step, or that the pattern finds; newest first, as they are listed.

    Other numbers in titles ("Upload 12 files") are no steps.
    """
    found = []
    for commit in commits:
        named = read_by(pattern, commit.title)
        beside = pattern is None and commit.title.endswith(_FOLDER_ONLY)
        if named is not None and not named.guessed and not beside:
            checkpoint = Checkpoint(
                named.step,
                f"{repo}@{commit.commit_id}",
                "commits",
                sha=commit.commit_id,
                date=commit.created_at.replace(microsecond=0).isoformat(),
            )
            found.append(Candidate(checkpoint, f'"{named.shape}"', named.family))
    return found
