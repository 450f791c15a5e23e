"""How much memory there is to use, and what to say when it was not enough."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from relex_merge.errors import RelexError

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
# File of the limit, file of the usage, and entry of memory.stat for the cache of files.
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = ("memory.max", "memory.current", "inactive_file")
# Parts of the messages of torch's and Python's errors for an allocation that failed.
_FAILED = ("can't allocate memory", "not enough memory", "can't start new thread", "out of memory")


def free_memory(root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Return the bytes that this process may still allocate without harm to others or itself.

    That is what the machine has available, or less where a container has a limit of its own.

    Args:
        root: where control groups are mounted.
        membership: the file that says which groups the process is in.
    """
    import psutil

    available = int(psutil.virtual_memory().available)
    left = left_in_cgroup(root, membership)
    return available if left is None else min(available, left)


def left_in_cgroup(root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int | None:
    """Return the bytes left below the tightest memory limit of this process's control groups.

    The limits of all groups above its own count too. What the kernel would give back (the cache of
    files that were read long ago) counts as left.

    Args:
        root: where the control groups are mounted, of version 1, 2 or both.
        membership: the file that says which groups the process is in.

    Returns:
        None where there is no limit, or no control groups.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    left = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            groups = [*_groups(root, path), *_groups(root / "unified", path)]
            left += [_left(group, _VERSION_2) for group in groups]
        elif "memory" in controllers.split(","):
            left += [_left(group, _VERSION_1) for group in _groups(root / "memory", path)]
    return min((found for found in left if found is not None), default=None)


def _groups(mount: Path, path: str) -> list[Path]:
    """Return the folders of a group and of those above it, as far as they are visible here.

    In a container the group's path may be that of the host, and its folder the mount itself.
    """
    own = mount / path.lstrip("/")
    return [folder for folder in (own, *own.parents) if folder.is_relative_to(mount)]


def _left(group: Path, names: tuple[str, str, str]) -> int | None:
    """Return the bytes left in a group, None where it has no limit."""
    limit, usage, cache = names
    try:
        most = (group / limit).read_text().strip()
        if most == "max":
            return None
        used = int((group / usage).read_text())
        lines = (group / "memory.stat").read_text().splitlines()
        statistics = dict(line.split(" ", 1) for line in lines)
        return max(int(most) - used + int(statistics.get(cache, 0)), 0)
    except (OSError, ValueError):  # other systems, or a group without this controller
        return None


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn a failed allocation into a RelexError that says what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RelexError(
            "the GPU has no room for a part of one tensor; free its memory, or leave --device out"
        ) from error
    except (MemoryError, OSError, RuntimeError) as error:
        if not _is_failed_allocation(error):
            raise
        raise RelexError(
            f"not enough memory ({' '.join(str(error).split())[:100] or 'an allocation failed'}); "
            "give a smaller --memory-budget or --num-threads, or raise the limit (ulimit -v, or "
            "that of the container)"
        ) from error


def _is_failed_allocation(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(part in text for part in _FAILED)
