"""Publishing what is there: everything is looked at before the first upload."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from relex_merge.checkpoints.series import Checkpoint
from relex_merge.checkpoints.whole import missing_part
from relex_merge.errors import RelexError
from relex_merge.publishing.contents import weights_of
from relex_merge.publishing.publisher import SeriesPublisher

Notify = Callable[[str], None]


class RefusedError(RelexError):
    """A revision is there already, with other content."""


def publish_all(
    publisher: SeriesPublisher,
    checkpoints: Sequence[Checkpoint],
    notify: Notify,
    unchanged: Callable[[Checkpoint], bool] = lambda _: True,
) -> tuple[list[int], list[int]]:
    """Publish every checkpoint that is not there yet; (steps published, steps there before).

    unchanged: asked between upload and commit; where it says False nothing is committed. Raises
    RefusedError before anything is uploaded when a revision holds other content.
    """
    standing = publisher.look()
    states = {c.step: publisher.state(c, standing) for c in checkpoints}
    _refuse(publisher, [step for step, state in states.items() if state == "other"])
    before = [step for step, state in states.items() if state == "complete"]
    for step in before:
        notify(f"{publisher.format.name(step)} is complete already")
    published = []
    for checkpoint in checkpoints:
        if states[checkpoint.step] == "missing" and publisher.publish(checkpoint, unchanged):
            published.append(checkpoint.step)
            notify(f"published {publisher.url(checkpoint.step)}")
    return published, before


def _refuse(publisher: SeriesPublisher, steps: Sequence[int]) -> None:
    if not steps:
        return
    names = ", ".join(publisher.format.name(step) for step in steps[:6])
    more = f" and {len(steps) - 6} more" if len(steps) > 6 else ""
    first = publisher.format.name(steps[0])
    raise RefusedError(
        f"{publisher.repo} has {names}{more} with other content, so nothing was uploaded; publish "
        "under other names with --revision-format, leave the steps out with --observe, or delete "
        f"the revision first: hf repos branch delete {publisher.repo} {first}"
    )


def check_whole(checkpoints: Sequence[Checkpoint]) -> None:
    """Raise RelexError for a checkpoint that is not complete, or is being written."""
    for checkpoint in checkpoints:
        folder = Path(checkpoint.reference)
        fault = missing_part(folder, weights_of(folder))
        if fault:
            raise RelexError(
                f"{folder} is not whole: {fault}; if it is being written, wait or add --watch, "
                "else remove it or leave the step out with --observe"
            )
