"""Whether a checkpoint of a run that is still writing may be published.

Three things must agree. It is whole, as far as names, headers and the ends of files tell. The
trainer has said so, where it is one that does: transformers writes ``trainer_state.json`` last. And
nothing in the folder has changed for a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from relex_merge.checkpoints.complete import why_not_whole
from relex_merge.checkpoints.files import TRAINER_STATE
from relex_merge.checkpoints.series import Checkpoint, Series
from relex_merge.checkpoints.sharded import TRAINER_FOLDER

LATEST = "latest_checkpointed_iteration.txt"  # verl's note, in the folder of the run
_ABOVE = 4  # folders from global_step_N/actor/model/huggingface up to that of the run


class Readiness:
    """Remembers what each checkpoint looked like.

    Args:
        settle: seconds without a change after which a checkpoint counts as written.
    """

    def __init__(self, settle: float) -> None:
        self._settle = settle
        self._stillness = Stillness(settle)
        self._looks: dict[str, Look] = {}

    def why_not(self, checkpoint: Checkpoint, series: Series) -> str | None:
        """Return why a checkpoint has to wait, or None when it is ready.

        Args:
            checkpoint: a local one.
            series: the series that it is of.

        Raises:
            OSError: files go away meanwhile.
        """
        folder = Path(checkpoint.reference)
        look = self._stillness.still(folder)
        fault = why_not_whole(folder)
        if fault:
            return fault
        if _trainer_is_writing(checkpoint, series):
            return f"the trainer has not written {TRAINER_STATE} yet"
        if _verl_is_writing(checkpoint):
            return f"verl has not written its step to {LATEST} yet"
        if look is None:
            return f"it has changed within the last {self._settle:g} s"
        self._looks[checkpoint.reference] = look
        return None

    def unchanged(self, checkpoint: Checkpoint) -> bool:
        """Tell whether a checkpoint that was ready still looks the same."""
        try:
            return look_at(Path(checkpoint.reference)) == self._looks.get(checkpoint.reference)
        except OSError:
            return False


def _trainer_is_writing(checkpoint: Checkpoint, series: Series) -> bool:
    """Tell whether this is the newest checkpoint of transformers' Trainer, without its last file.

    An earlier one without the file, and with a later one beside it, shows that this run's trainer
    writes none.
    """
    by_trainer = series.layout == "transformers" or (
        (Path(checkpoint.reference) / TRAINER_FOLDER).is_dir()
    )
    if not by_trainer or checkpoint.step != series.steps[-1]:
        return False
    *earlier, last = (Path(c.reference) / TRAINER_STATE for c in series.checkpoints)
    return not last.is_file() and all(mark.is_file() for mark in earlier)


def _verl_is_writing(checkpoint: Checkpoint) -> bool:
    """Tell whether verl's note of its last checkpoint, which it writes behind it, is of before."""
    for folder in list(Path(checkpoint.reference).parents)[:_ABOVE]:
        try:
            return int((folder / LATEST).read_text()) < checkpoint.step
        except (OSError, ValueError):
            continue
    return False


Look: TypeAlias = tuple[tuple[str, int, int, int], ...]


def look_at(folder: Path) -> Look:
    """Return name, bytes, time of change (ns) and inode of every file below ``folder``.

    Raises:
        FileNotFoundError: a file goes away meanwhile.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_dir():
            stat = path.stat()
            name = path.relative_to(folder).as_posix()
            found.append((name, stat.st_size, stat.st_mtime_ns, stat.st_ino))
    return tuple(found)


class Stillness:
    """Remembers when each folder was last seen to change.

    Args:
        seconds: without a change, after which a folder is still.
        clock: what tells the time, in seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._seen: dict[Path, tuple[Look, float]] = {}

    def still(self, folder: Path) -> Look | None:
        """Return how the folder looks if it has not changed for so many seconds, else None."""
        look, now = look_at(folder), self._clock()
        before, since = self._seen.get(folder, (None, now))
        if before != look:
            since = now
        self._seen[folder] = (look, since)
        return look if now - since >= self._seconds else None
