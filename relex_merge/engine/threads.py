"""How many cores one computation may take."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def single_threaded() -> Iterator[None]:
    """Each worker computes on one core: the engine's parallelism is over spans.

    torch has its own switch; numpy's BLAS, which solves the T × T problems, would otherwise spin on
    every core for each of them.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(threads)


def compute_pool(workers: int, name: str) -> ThreadPoolExecutor:
    """Make a pool whose threads each compute on one core, inside :func:`single_threaded`.

    What torch was told in one thread does not reach MKL in a thread that is made later: there a
    product runs on all cores, and the last bits of its sums depend on how many there are.

    Args:
        workers: threads.
        name: how their names begin.
    """
    return ThreadPoolExecutor(workers, name, torch.set_num_threads, (1,))
