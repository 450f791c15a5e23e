"""Work done in batches that shrink when memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from relex_merge.errors import RelexError

Given = TypeVar("Given")
Got = TypeVar("Got")

# What torch's CPU allocator and the MPS backend say; CUDA has an exception of its own.
_SAYS = ("can't allocate memory", "not enough memory", "out of memory")


def in_batches(
    items: Sequence[Given],
    batch_size: int,
    work: Callable[[Sequence[Given]], Sequence[Got]],
    *,
    name: str,
) -> list[Got]:
    """Apply ``work`` to consecutive batches of ``items``.

    Where a batch runs out of memory it is tried again at half the size, and so are all after it.

    Args:
        items: what is worked on.
        batch_size: the most items in a batch, at least 1.
        work: gives a result for each item of a batch; may be called again with part of a batch
            that it failed on.
        name: what messages call the model.

    Returns:
        The results in the order of the items.

    Raises:
        RelexError: a single item does not fit into memory.
    """
    results: list[Got] = []

    def next_ones(most: int) -> Sequence[Got]:
        return work(items[len(results) : len(results) + most])

    while len(results) < len(items):
        most = min(batch_size, len(items) - len(results))
        done, batch_size = shrinking(next_ones, most, name=name)
        results += done
    return results


def shrinking(work: Callable[[int], Got], batch_size: int, *, name: str) -> tuple[Got, int]:
    """Call ``work`` with a batch size that is halved as long as memory runs out.

    Args:
        work: does everything with at most as many sequences at a time as it is told.
        batch_size: the first size, at least 1.
        name: what messages call the model.

    Returns:
        What ``work`` returned, and the size that it was called with.

    Raises:
        RelexError: memory runs out with one sequence at a time.
    """
    while True:
        try:
            return work(batch_size), batch_size
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Here the exception is gone, and with it what the failed call held.
        if batch_size == 1:
            raise RelexError(
                f"{name}: out of memory with one sequence at a time; use shorter prompts and "
                "responses, a smaller dtype, or a device with more memory"
            )
        batch_size = (batch_size + 1) // 2
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception means that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(part in str(error) for part in _SAYS)
