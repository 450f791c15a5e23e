"""Checkpoints written by torch itself in several gloo processes on the CPU, as trainers write them.

Run as a module with a folder: ``states/STEP.safetensors`` in it are the weights to save,
``adapters/STEP.safetensors`` the factors of adapters, and every layout is written beside them.
torch is imported once, and the ranks are forked from there; weights go into a tree of modules that
has the tensors' names and computes nothing.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn
from torch.distributed.checkpoint import state_dict_saver as dcp
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    FullyShardedDataParallel,
    ShardedStateDictConfig,
    ShardingStrategy,
    StateDictType,
    fully_shard,
)
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.distributed.tensor import Shard

WORLDS = (2, 3)


class Tree(nn.Module):
    """A module with the given parameters below it, by their dotted names."""


class Layer(Tree):
    """One of a list of layers, which is wrapped on its own."""


def tree(state: dict[str, torch.Tensor]) -> Tree:
    """Return modules in which the tensors have their names."""
    root = Tree()
    for name, tensor in state.items():
        *path, last = name.split(".")
        place: nn.Module = root
        for part in path:
            if part not in place._modules:
                place.add_module(part, Layer() if part.isdigit() else Tree())
            place = place.get_submodule(part)
        place.register_parameter(last, nn.Parameter(tensor.clone()))
    return root


def fsdp1(state: dict[str, torch.Tensor], world: int, **how: Any) -> dict[str, Any]:
    """Return the sharded state dict of FSDP1, of DTensors when it is given a mesh."""
    model = FullyShardedDataParallel(
        tree(state),
        device_id=torch.device("cpu"),
        use_orig_params=True,
        auto_wrap_policy=ModuleWrapPolicy({Layer}),
        **how,
    )
    config = ShardedStateDictConfig(offload_to_cpu=False)
    with FullyShardedDataParallel.state_dict_type(model, StateDictType.SHARDED_STATE_DICT, config):
        return dict(model.state_dict())


def fsdp2(
    state: dict[str, torch.Tensor], shape: tuple[int, ...], columns: Shard | None = None
) -> dict[str, Any]:
    """Return the state dict of FSDP2 on a mesh; of two dimensions the first one replicates.

    columns: how matrices are cut, by default along their first dimension.
    """
    names = ("fsdp",) if len(shape) == 1 else ("ddp", "fsdp")
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
    model = tree(state)
    how: dict[str, Any] = {}
    if columns is not None:
        how["shard_placement_fn"] = lambda p: columns if p.ndim > 1 else None
    for module in model.modules():
        if isinstance(module, Layer):
            fully_shard(module, mesh=mesh, **how)
    fully_shard(model, mesh=mesh, **how)
    return model.state_dict()


def verl(folder: Path, state: dict[str, Any], rank: int, world: int, version: int = 2) -> None:
    """Save a rank's state as verl does."""
    actor = folder / "actor"
    actor.mkdir(parents=True, exist_ok=True)
    torch.save(state, actor / f"model_world_size_{world}_rank_{rank}.pt")
    if rank == 0:
        config = {"FSDP_version": version, "world_size": world}
        (actor / "fsdp_config.json").write_text(json.dumps(config))


def save_series(root: Path, step: str, rank: int, world: int) -> None:
    """Write one step as verl with FSDP2, and as the Trainer with accelerate."""
    state = fsdp2(load_file(root / "states" / f"{step}.safetensors"), (world,))
    verl(root / f"fsdp2-{world}" / f"global_step_{step}", state, rank, world)
    if step == "0":
        return  # the Trainer saves none before the first step
    trainer = root / f"trainer-{world}" / f"checkpoint-{step}"
    dcp.save({"model": state, "epoch": 1}, checkpoint_id=trainer / "pytorch_model_fsdp_0")
    dcp.save({"optimizer": {"exp_avg": state}}, checkpoint_id=trainer / "optimizer_0")


def save_others(root: Path, step: str, rank: int, world: int) -> None:
    """Write one step in the layouts that are not worth a series."""
    state = load_file(root / "states" / f"{step}.safetensors")
    name = f"global_step_{step}"
    mesh = init_device_mesh("cpu", (world,), mesh_dim_names=("fsdp",))
    verl(root / f"fsdp1-{world}" / name, fsdp1(state, world, device_mesh=mesh), rank, world, 1)
    verl(root / f"sharded-{world}" / name, fsdp1(state, world), rank, world, 1)
    sharded = fsdp2(state, (world,))
    titan = {**{f"model.{n}": t for n, t in sharded.items()}, "optim.step": torch.tensor(3.0)}
    dcp.save(
        {**titan, "train_state": {"step": int(step)}},
        checkpoint_id=root / f"dcp-{world}" / f"step-{step}",
    )
    first = root / f"trainer1-{world}" / f"checkpoint-{step}" / "pytorch_model_fsdp_0"
    dcp.save({"model": fsdp1(state, world)}, checkpoint_id=first)
    place = root / f"hf-{world}" / f"step-{step}"
    writer = HuggingFaceStorageWriter(str(place), save_distributed=True)
    dcp.save(sharded, storage_writer=writer)


def save_of_two(root: Path, step: str, rank: int) -> None:
    """Write one step in the layouts that two ranks show as well as three."""
    state = load_file(root / "states" / f"{step}.safetensors")
    name = f"global_step_{step}"
    verl(root / "hsdp" / name, fsdp2(state, (1, 2)), rank, 2)
    verl(root / "replicated" / name, fsdp2(state, (2, 1)), rank, 2)
    hybrid = {"sharding_strategy": ShardingStrategy.HYBRID_SHARD}
    pair = init_device_mesh("cpu", (2, 1), mesh_dim_names=("ddp", "fsdp"))
    verl(root / "copies" / name, fsdp1(state, 2, device_mesh=pair, **hybrid), rank, 2, 1)
    sharded = fsdp2(state, (2,))
    parts = {n: t.to_local().clone() for n, t in sharded.items()}
    verl(root / "plain" / name, parts, rank, 2, 1)
    full = {n: t.full_tensor() for n, t in sharded.items()}
    verl(root / "columns" / name, fsdp2(state, (2,), Shard(1)), rank, 2)
    if rank == 0:
        place = root / "full" / f"checkpoint-{step}"
        place.mkdir(parents=True)
        torch.save(full, place / "pytorch_model_fsdp.bin")
        wrapped = {f"module._orig_mod.{n}": t for n, t in state.items()}
        verl(root / "alone" / name, wrapped, 0, 1)
    for path in sorted((root / "adapters").glob("*.safetensors")):
        adapter = fsdp2(load_file(path), (2,))
        verl(root / "lora" / f"global_step_{path.stem}", adapter, rank, 2)


def as_rank(root: Path, rank: int, world: int) -> None:
    """Be one rank of a world."""
    dist.init_process_group(
        "gloo",
        init_method=f"file://{root}/rendezvous-{world}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=60),
    )
    steps = sorted((path.stem for path in (root / "states").glob("*.safetensors")), key=int)
    for step in steps:
        save_series(root, step, rank, world)
    save_others(root, steps[-1], rank, world)
    if world == 2:
        save_of_two(root, steps[-1], rank)
    dist.barrier()
    dist.destroy_process_group()


def forked(work: Callable[[], None]) -> int:
    """Run ``work`` in a fork of this process; return its id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main(root: Path) -> None:
    """Start the ranks of all worlds and wait for them."""
    children = [
        forked(lambda rank=rank, world=world: as_rank(root, rank, world))  # type: ignore[misc]
        for world in WORLDS
        for rank in range(world)
    ]
    ended = [os.waitpid(child, 0)[1] for child in children]
    if any(ended):
        sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
