"""Pauses that take a fraction of their time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def hurried(factor: float = 100.0) -> Iterator[None]:
    """Divide by ``factor`` what this process sleeps, as between two attempts of a request."""
    sleep = time.sleep

    def nap(seconds: float) -> None:
        sleep(seconds / factor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", nap)
        yield
