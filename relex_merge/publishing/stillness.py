"""Whether anybody still writes to a checkpoint's folder.

A file can have its final size before its last byte is written, and a trainer may pause between two
files. So a folder counts as written only when nothing in it, names, sizes or times, has changed for
a while, as seen by this process's own clock (times of a network disk need not agree with ours).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

Look: TypeAlias = tuple[tuple[str, int, int, int], ...]


def look_at(folder: Path) -> Look:
    """Name, size, time of change and inode of every file below ``folder``.

    Raises FileNotFoundError when a file goes away meanwhile.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_dir():
            stat = path.stat()
            name = path.relative_to(folder).as_posix()
            found.append((name, stat.st_size, stat.st_mtime_ns, stat.st_ino))
    return tuple(found)


class Stillness:
    """Remembers when each folder was last seen to change."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._seen: dict[Path, tuple[Look, float]] = {}

    def still(self, folder: Path) -> Look | None:
        """How the folder looks if it has not changed for so many seconds, else None."""
        look, now = look_at(folder), self._clock()
        before, since = self._seen.get(folder, (None, now))
        if before != look:
            since = now
        self._seen[folder] = (look, since)
        return look if now - since >= self._seconds else None
