"""Fixtures that are made once for the whole run, however many processes share it."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from filelock import FileLock

Made = TypeVar("Made")


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Made]) -> Made:
    """What ``make`` returns, made by the first process of the run that asks for it.

    Args:
        factory: of this process's temporary folders.
        name: of what is made, and of the folder that ``make`` gets, which does not exist yet.
        make: writes the folder; what it returns must be picklable.
    """
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has a folder of its own in the run's
        root = root.parent
    kept = root / f"{name}.pickle"
    with FileLock(root / f"{name}.lock"):
        if not kept.is_file():
            kept.write_bytes(pickle.dumps(make(root / name)))
    found: Made = pickle.loads(kept.read_bytes())
    return found
