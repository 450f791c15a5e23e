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
    while len(results) < len(items):
        batch = items[len(results) : len(results) + batch_size]
        done = _attempt(work, batch)
        if done is not None:
            results += done
        elif len(batch) == 1:
            raise RelexError(
                f"{name}: out of memory with one sequence at a time; use shorter prompts and "
                "responses, a smaller dtype, or a device with more memory"
            )
        else:
            batch_size = (len(batch) + 1) // 2
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    return results


def _attempt(
    work: Callable[[Sequence[Given]], Sequence[Got]], batch: Sequence[Given]
) -> Sequence[Got] | None:
    """Return the results; None when memory ran out, what the failed call held being free again."""
    try:
        return work(batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception means that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(part in str(error) for part in _SAYS)
