"""Sampled numbers of the parameters that are being trained, wherever they are.

With FSDP2 each rank holds a part of every parameter. It takes what is wanted of its own part; the
parts are put together by one sum over all ranks, in which every number is there once and zero
elsewhere. Parameters of another layout (tensor parallelism beside it) are gathered whole, one at a
time. What a model does not have under its stored name and shape (FSDP1, DeepSpeed ZeRO-3, fused
experts) is left to be read from the checkpoint's files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, TypeVar

import torch
from torch import distributed

from relex_merge.engine.sample_memory import Wanted

T = TypeVar("T")

WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile


def from_first_rank(value: T) -> T:
    """Return rank 0's value on every rank of a distributed run; all of them must call it."""
    if not is_distributed():
        return value
    said = [value]
    distributed.broadcast_object_list(said, src=0)
    return said[0]


def is_distributed() -> bool:
    """Whether several processes train together."""
    return distributed.is_available() and distributed.is_initialized()


@torch.no_grad()
def live_numbers(model: torch.nn.Module, wanted: Sequence[Wanted]) -> dict[str, torch.Tensor]:
    """Return the wanted numbers of a model's parameters, on the CPU; all ranks must call it.

    Args:
        model: being trained.
        wanted: what is to be known, the same on every rank.

    Returns:
        Stored name → its numbers (m,), for those that the model has; whole on every rank.
    """
    parameters: dict[str, Any] = {_plain(name): p for name, p in model.named_parameters()}
    found: dict[str, torch.Tensor] = {}
    parts: dict[str, torch.Tensor] = {}
    for one in wanted:
        parameter = parameters.get(one.name)
        if parameter is None or tuple(parameter.shape) != one.shape:
            continue
        if not _is_sharded(parameter):
            found[one.name] = _taken(parameter.detach(), one.ranges, 0)
        elif _is_cut_by_rows(parameter):
            parts[one.name] = _part(parameter, one)
        else:
            found[one.name] = _taken(parameter.detach().full_tensor(), one.ranges, 0)
    found |= _summed(parts)
    return {name: numbers.cpu() for name, numbers in found.items()}


def _plain(name: str) -> str:
    """Return a parameter's name without what wrappers put in front of it."""
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper)
    return name


def _is_sharded(parameter: torch.Tensor) -> bool:
    from torch.distributed.tensor import DTensor

    return isinstance(parameter.detach(), DTensor)


def _is_cut_by_rows(parameter: Any) -> bool:
    """Whether each rank holds some rows of a parameter: Shard(0) on one mesh of all ranks."""
    from torch.distributed.tensor import Shard

    placements = parameter.placements
    if parameter.device_mesh.size() != distributed.get_world_size():
        return False
    return len(placements) == 1 and type(placements[0]) is Shard and placements[0].dim == 0


def _part(parameter: Any, wanted: Wanted) -> torch.Tensor:
    """Return the wanted numbers that this rank holds, with zeros in the place of the others.

    Rows are cut as ``torch.chunk`` cuts them: in equal parts, rounded up, the last ones shorter.
    """
    mesh = parameter.device_mesh
    rows, inner = wanted.shape[0], max(parameter.numel() // max(wanted.shape[0], 1), 1)
    each = -(-rows // mesh.size())
    return _taken(
        parameter.detach().to_local(),
        wanted.ranges,
        min(each * mesh.get_local_rank(), rows) * inner,
    )


def _taken(numbers: torch.Tensor, ranges: Sequence[tuple[int, int]], first: int) -> torch.Tensor:
    """Return the numbers in ``ranges`` of a tensor, 0 for those that are not here.

    Args:
        numbers: a part of the tensor in one piece.
        ranges: [start, stop) in the whole tensor, row-major.
        first: where in it the part begins.
    """
    flat = numbers.reshape(-1)
    out = flat.new_zeros(sum(stop - start for start, stop in ranges))
    done = 0
    for start, stop in ranges:
        begin, end = max(start, first), min(stop, first + flat.numel())
        if begin < end:
            out[done + begin - start : done + end - start] = flat[begin - first : end - first]
        done += stop - start
    return out


def _summed(parts: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the sums over all ranks, by one reduction.

    In float32 at least, which not every backend can do less than; no digit is lost, since of each
    number only one rank has more than 0.
    """
    if not parts:
        return {}
    dtype = reduce(torch.promote_types, (part.dtype for part in parts.values()), torch.float32)
    joined = torch.cat([part.to(dtype) for part in parts.values()])
    distributed.all_reduce(joined)
    sizes = [len(part) for part in parts.values()]
    return dict(zip(parts, torch.split(joined, sizes), strict=True))
