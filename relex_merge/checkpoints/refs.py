"""Checkpoints kept as branches or tags of a Hub repo: one request lists them all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from relex_merge.checkpoints.grouping import Candidate
from relex_merge.checkpoints.names import read_by
from relex_merge.checkpoints.series import Checkpoint

if TYPE_CHECKING:
    from huggingface_hub import GitRefInfo

OUR_OUTPUTS = "relex-step-"  # what push calls an extrapolation by default


def from_refs(
    repo: str, layout: str, refs: Sequence[GitRefInfo], pattern: re.Pattern[str] | None
) -> list[Candidate]:
    """Those with a step in their names. layout: ``branches`` or ``tags``."""
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
