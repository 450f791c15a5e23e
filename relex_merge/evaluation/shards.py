"""Checkpoints in shards, which transformers loads from files as a whole."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from relex_merge.publishing.converted import convert

if TYPE_CHECKING:
    from relex_merge.checkpoints.locate import Snapshot


def as_a_whole(snapshot: Snapshot, scratch: Path) -> Path:
    """Return a folder that transformers loads a checkpoint from.

    Args:
        snapshot: of the checkpoint, on this disk.
        scratch: takes a copy of one in shards, in the dtype of the shards; a copy that is there is
            taken again.

    Raises:
        RelexError: the checkpoint cannot be read, or there is no room for the copy.
    """
    if snapshot.sharded is None:
        return snapshot.folder
    checkpoint = snapshot.sharded.checkpoint
    folder = scratch / f"whole-{hashlib.sha256(str(checkpoint).encode()).hexdigest()[:16]}"
    if not folder.is_dir():
        partial = folder.with_suffix(".partial")
        partial.mkdir(parents=True)
        convert(checkpoint, partial)
        partial.rename(folder)
    return folder
