"""One run at a time for an OUT, on this machine or on another that shares its disk.

The lock is a file beside OUT that names its owner, who touches it every second. It is taken over at
once when the owner's process is gone from this machine, and after ``LEASE`` seconds without a touch
when it ran on another one. Kernel locks would not do: many shared file systems keep them to
themselves.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from relex_merge.errors import RelexError, disk_errors

if TYPE_CHECKING:
    from filelock import SoftFileLease

    from relex_merge.pipeline.options import Notify

LEASE = 20.0  # seconds without a touch after which an owner on another machine counts as gone
_TOUCH = 1.0  # seconds
_LOOK = 0.1  # seconds


class Lock:
    """The lock while it is held."""

    def __init__(self, lease: SoftFileLease, out: Path | str) -> None:
        self._lease = lease
        self._out = out

    def check(self) -> None:
        """Raise RelexError when the lock was lost, as after the machine slept for a while."""
        if not self._lease.is_lock_held_by_us:
            raise RelexError(
                f"another run took over {self._out} while this one stood still; wait for it"
            )


@contextmanager
def locked(
    file: Path, out: Path | str, notify: Notify, lease_seconds: float = LEASE
) -> Iterator[Lock]:
    """Hold the lock of ``out``, or raise RelexError that says who does.

    Args:
        file: the lock.
        out: what it is for.
        notify: told when the owner may be gone and must be watched for a while.
        lease_seconds: as ``LEASE``; the same for all who use the lock.
    """
    from filelock import SoftFileLease

    lease = SoftFileLease(
        file,
        lease_duration=lease_seconds,
        heartbeat_interval=min(_TOUCH, lease_seconds / 4),
        thread_local=False,
    )
    with disk_errors(file):
        _acquire(lease, file, out, notify)
    try:
        yield Lock(lease, out)
    finally:
        _sweep(file)
        lease.release()


def _acquire(lease: SoftFileLease, file: Path, out: Path | str, notify: Notify) -> None:
    """Wait until the lock is ours, or its owner has shown a sign of life."""
    seen = _touched(file)
    begin = time.monotonic()
    said = False
    while not _try(lease):
        if _touched(file) not in (seen, None):
            owner = lease.owner
            who = f" (process {owner.pid} on {owner.hostname})" if owner else ""
            raise RelexError(f"another run is writing {out}{who}; wait for it")
        waited = time.monotonic() - begin
        if waited > 3 * lease.lease_duration:
            raise RelexError(
                f"{file} says that another run is writing {out}, and cannot be read; delete it if "
                "there is none"
            )
        if waited > lease.lease_duration and lease.owner is None:
            lease.force_break()  # its owner was killed before it could put its name in
        if waited > 2 * _TOUCH and not said:
            said = True
            notify(f"{file} was left by a run that may be gone; watching it for a while")


def _sweep(file: Path) -> None:
    """Delete what processes left that were killed while they took the lock over.

    filelock puts the old lock under ``<file>.break.<process>.<random>`` for a moment. This is done
    at the end of a run, when nobody who was after the same old lock can still be at it.
    """
    for left in file.parent.glob(f"{file.name}.break.*"):
        process = left.name.split(".")[-2]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            with suppress(OSError):
                left.unlink()


def _try(lease: SoftFileLease) -> bool:
    from filelock import Timeout

    try:
        lease.acquire(timeout=_LOOK, poll_interval=_LOOK / 4)
    except Timeout:
        return False
    return True


def _touched(file: Path) -> tuple[int, int] | None:
    """Return what changes with every touch, and with every owner; None without the file."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino
