"""Two folders change places in one step, where the system can do that."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

_HERE = -100  # AT_FDCWD: paths are relative to the working directory
_EXCHANGE = 2  # RENAME_EXCHANGE
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)  # an old kernel, or a file system without it


def exchange(one: Path, other: Path) -> bool:
    """Let two paths of one file system change places, so that neither is missing at any moment.

    It is ``renameat2`` of Linux (man 2 rename), which Python does not offer.

    Args:
        one: exists.
        other: exists too.

    Returns:
        Whether they did; False where the system or the file system knows no such thing.

    Raises:
        OSError: it knows, and refuses.
    """
    if sys.platform != "linux":
        return False
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:  # a C library from before 2018
        return False
    sys.audit("os.rename", str(one), str(other), -1, -1)  # as os.rename does
    if call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))
