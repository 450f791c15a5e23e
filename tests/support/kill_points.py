"""Kills at every step: a process that dies at its n-th change of the file system.

The audit hook of Python is called before each ``open`` for writing, ``rename``, ``remove``, … below
a folder; at the n-th call the process ends at once, as by ``kill -9``: no ``finally`` runs, no
buffer is flushed. ::

    for n in itertools.count(1):
        died = dies_at(n, work, root)
        ...                      # what must hold now, and after work() is repeated
        if not died:
            break

``dies_at`` forks, for work that needs no threads of torch; a process made otherwise (forkserver,
``python -c``) calls ``arm`` before it begins.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

KILLED = 9
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink")


def die() -> None:
    """End this process as ``kill -9`` does."""
    os._exit(KILLED)


def arm(n: int, root: Path, strike: Callable[[], object] = die) -> Callable[[], int]:
    """Have ``strike`` called at this process's ``n``-th change of what lies below ``root``.

    What ``strike`` raises is raised by the change, which is then not made. Returns a function that
    tells how many changes there were so far.
    """
    lock = threading.Lock()
    count = 0
    prefix = str(root.resolve())

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if not _changes(event, arguments, prefix):
            return
        with lock:
            count += 1
            struck = count == n
        if struck:
            strike()

    sys.addaudithook(hook)
    return lambda: count


def _changes(event: str, arguments: tuple[Any, ...], prefix: str) -> bool:
    """Tell whether an event is a change below the folder ``prefix``."""
    if event == "open":
        path, _, flags = arguments
        return isinstance(path, str) and path.startswith(prefix) and bool(flags & _WRITING)
    if event not in _CHANGES:
        return False
    path = arguments[0]
    if isinstance(path, str) and path.startswith(prefix):
        return True
    # Trees are deleted by names in an open folder.
    return event in ("os.remove", "os.rmdir") and arguments[-1] not in (-1, None)


def dies_at(
    n: int, work: Callable[[], object], root: Path, strike: Callable[[], object] = die
) -> bool:
    """Do ``work`` in a fork that is struck at its ``n``-th change; False: it ended before.

    A ``strike`` that is not deadly must end ``work`` with a KeyboardInterrupt.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            arm(n, root, strike)
            work()
            code = 0
        except KeyboardInterrupt:
            code = KILLED
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, KILLED), f"exit code {code}: the work failed by itself"
    return code == KILLED
