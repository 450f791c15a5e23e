"""All ranks must stop at the same step, or the first collective hangs."""

from __future__ import annotations


def agree(stop: bool) -> bool:
    """What rank 0 says, on every rank of a distributed run; called by all of them."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return stop
    said = [stop]
    distributed.broadcast_object_list(said, src=0)
    return said[0]
