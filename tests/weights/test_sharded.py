"""Promises about weights in shards: what torch wrote in several processes is read bit for bit."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch.distributed.tensor._utils import _compute_local_shape_and_global_offset
from torch.distributed.tensor.placement_types import Replicate, Shard, _StridedShard

from relex_merge.checkpoints.inert import Placement
from relex_merge.checkpoints.sharded import find_sharded
from relex_merge.weights.fsdp import box_of
from relex_merge.weights.sharded import open_sharded
from relex_merge.weights.source import Read, read_numbers
from tests.support.one_process_ranks import save_ranks
from tests.support.sharded_runs import OF_OTHERS, OF_VERL, ShardedRuns


@pytest.mark.parametrize("layout", [*OF_VERL, *OF_OTHERS])
def test_every_layout_has_the_numbers_of_the_whole_state(
    sharded_runs: ShardedRuns, layout: str
) -> None:
    found = sharded_runs.sharded(layout)
    found.check()
    source = open_sharded(found, "the model")
    state = sharded_runs.state()
    assert set(source.tensors) == set(state)
    assert (found.kind, found.dtype) == ("model", "F32")
    for name, tensor in state.items():
        info = source.tensors[name]
        assert (info.dtype, info.shape) == (tensor.dtype, tuple(tensor.shape))
        assert torch.equal(read_numbers(source, name, 0, info.numel), tensor.reshape(-1))


def test_64_ranks_of_which_the_last_ones_have_nothing(tmp_path: Path) -> None:
    noise = torch.Generator().manual_seed(0)
    shapes = {"a": (130, 3), "b": (5,), "c": (64, 2, 2)}
    state = {name: torch.randn(shape, generator=noise) for name, shape in shapes.items()}
    save_ranks(tmp_path, state, 64)
    found = find_sharded(tmp_path)
    assert found is not None
    source = open_sharded(found, "the model")
    for name, tensor in state.items():
        assert torch.equal(read_numbers(source, name, 0, tensor.numel()), tensor.reshape(-1))


@pytest.mark.parametrize("layout", ["fsdp2-3", "columns", "dcp-3"])
def test_any_range_of_bytes_can_be_read(sharded_runs: ShardedRuns, layout: str) -> None:
    source = open_sharded(sharded_runs.sharded(layout), "the model")
    name = "model.layers.1.mlp.gate_proj.weight"  # (24, 16)
    whole = sharded_runs.state()[name].numpy().tobytes()
    ranges = [(0, 1), (3, 70), (500, 533), (511, 1025), (1535, 1536), (5, 1531)]
    buffers = [bytearray(stop - start) for start, stop in ranges]
    source.read([Read(name, a, memoryview(b)) for (a, _), b in zip(ranges, buffers, strict=True)])
    assert buffers == [whole[start:stop] for start, stop in ranges]


def test_an_adapter_in_shards_has_the_names_and_numbers_that_peft_saves(
    sharded_runs: ShardedRuns,
) -> None:
    from safetensors.torch import load_file

    found = sharded_runs.sharded("lora")
    source = open_sharded(found, "the adapter")
    saved = load_file(sharded_runs.adapters.folders[-1] / "adapter_model.safetensors")
    assert found.kind == "adapter"
    assert set(source.tensors) == set(saved)
    for name, tensor in saved.items():
        assert torch.equal(read_numbers(source, name, 0, tensor.numel()), tensor.reshape(-1))


def test_boxes_are_those_of_torch_for_every_place_in_a_mesh() -> None:
    kinds = [
        (Placement("replicate"), Replicate()),
        (Placement("shard", 0), Shard(0)),
        (Placement("shard", 1), Shard(1)),
    ]
    meshes = [
        (m, c) for m in ((3,), (2, 3), (4, 2)) for c in itertools.product(kinds, repeat=len(m))
    ]
    # Tensor parallelism, then FSDP: the first dimension of the mesh cuts what the second one left.
    both = ((Placement("strided", 0), _StridedShard(0, split_factor=2)), (kinds[1]))
    for mesh, chosen in [*meshes, ((3, 2), both)]:
        ours, theirs = zip(*chosen, strict=True)
        for place in itertools.product(*map(range, mesh)):
            sizes, offsets = _compute_local_shape_and_global_offset(
                (12, 5), mesh, place.__getitem__, theirs
            )
            box = box_of((12, 5), ours, mesh, place)
            assert box.sizes == tuple(sizes)
            if box.numel:
                assert box.offsets == tuple(offsets)
