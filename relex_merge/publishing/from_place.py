"""Publishing a series that lies in an object store: one checkpoint at a time passes this disk.

Only what is published is brought here, and it is deleted once its revision is complete. Revisions
that the repo has already are compared first, before anything is uploaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from relex_merge.checkpoints.files import SMALL_FILES, require_weights
from relex_merge.checkpoints.series import Checkpoint
from relex_merge.checkpoints.sharded import is_weights
from relex_merge.checkpoints.sharded_in_place import pin_checkpoint
from relex_merge.errors import RelexError
from relex_merge.places.download import bring, drop, is_here
from relex_merge.places.pin import PlacePin
from relex_merge.publishing.publisher import Notify, SeriesPublisher, check_whole, publish_all

_TOKENIZERS = ("*.tiktoken", "*.spm", "vocab.*", "bpe.codes")  # that are no SMALL_FILES


@dataclass(frozen=True)
class _Copy:
    """A checkpoint on this disk, and what it is a copy of."""

    checkpoint: Checkpoint
    pinned: PlacePin
    names: Sequence[str]

    def unchanged(self, _: Checkpoint) -> bool:
        """Tell whether the original is still what was copied."""
        return self.pinned.changed(self.names) is None


def publish_from_place(
    publisher: SeriesPublisher, checkpoints: Sequence[Checkpoint], base: str | None, notify: Notify
) -> tuple[list[int], list[int]]:
    """Publish every checkpoint that is not there yet.

    Args:
        publisher: of the repo.
        checkpoints: in a place.
        base: the model that the run started from.
        notify: called with a remark on each.

    Returns:
        Steps that were published, steps that were there before.

    Raises:
        RefusedError: a revision holds other content; nothing was uploaded.
        RelexError: a checkpoint is not whole or changes meanwhile, or place or Hub refuse.
    """
    there = publisher.look()
    missing = {c.step for c in checkpoints if publisher.is_missing(c.step, there)}
    before: list[int] = []
    published: list[int] = []
    for checkpoint in sorted(checkpoints, key=lambda c: (c.step in missing, c.step)):
        with _copied(checkpoint) as copy:
            check_whole([copy.checkpoint])
            new, old = publish_all(publisher, [copy.checkpoint], base, notify, copy.unchanged)
            if not new and not old:
                raise RelexError(
                    f"{checkpoint.reference} changed while it was uploaded, and was not published; "
                    "repeat the command when nothing else writes to it"
                )
            publisher.forget(copy.checkpoint)
        published += new
        before += old
    return published, before


@contextmanager
def _copied(checkpoint: Checkpoint) -> Iterator[_Copy]:
    """Bring a checkpoint here for a while; a copy that was here before stays."""
    pinned = pin_checkpoint(checkpoint.reference)
    weights = _weights_of(pinned, checkpoint.reference)
    names = [*dict.fromkeys([*pinned.matching([*SMALL_FILES, *_TOKENIZERS]), *weights])]
    stays = is_here(pinned, weights)
    folder = bring(pinned, names)
    yield _Copy(replace(checkpoint, reference=str(folder)), pinned, names)
    if not stays:
        drop(pinned)


def _weights_of(pinned: PlacePin, reference: str) -> Sequence[str]:
    """Return the files with the weights of a checkpoint, in shards or as a whole."""
    shards = [name for name in pinned.files if is_weights(name.rpartition("/")[2])]
    if shards:
        return shards
    index = pinned.matching(["*.index.json"])
    return require_weights(pinned.files, bring(pinned, index), reference).files
