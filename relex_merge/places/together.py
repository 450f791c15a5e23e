"""Several calls at a time, in threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def together(call: Callable[[A], B], arguments: Sequence[A], count: int) -> list[B]:
    """Return the results of ``call`` in order, computed ``count`` at a time.

    An error or Ctrl-C is passed on at once: transfers that are under way are not waited for.
    """
    pool = ThreadPoolExecutor(count)
    try:
        return list(pool.map(call, arguments))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
