"""Shards of any number of ranks, made one after another in this process by torch's fake group.

The group of ``torch.testing`` has every collective and no other processes, so that a DTensor of any
rank can be made and saved; nothing is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore


@contextmanager
def rank_of(world: int, rank: int) -> Iterator[DeviceMesh]:
    """Be one rank of a world, on a mesh as verl makes it."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world)
    try:
        yield init_device_mesh("cpu", (world,), mesh_dim_names=("fsdp",))
    finally:
        dist.destroy_process_group()


def part_of(mesh: DeviceMesh, world: int, rank: int, whole: torch.Tensor) -> DTensor:
    """A rank's part of a tensor that FSDP cuts along its first dimension; zeros for one on meta."""
    length = -(-whole.shape[0] // world)
    part = whole[rank * length : (rank + 1) * length]
    local = torch.zeros(part.shape) if whole.is_meta else part.clone()
    return DTensor.from_local(
        local, mesh, [Shard(0)], run_check=False, shape=whole.shape, stride=whole.stride()
    )


def save_ranks(
    folder: Path,
    state: Mapping[str, torch.Tensor],
    world: int,
    save: Callable[[Any, Path], None] = torch.save,
) -> None:
    """Write a state in the files of verl's ranks."""
    folder.mkdir(parents=True, exist_ok=True)
    for rank in range(world):
        with rank_of(world, rank) as mesh:
            parts = {name: part_of(mesh, world, rank, t) for name, t in state.items()}
            save(parts, folder / f"model_world_size_{world}_rank_{rank}.pt")
