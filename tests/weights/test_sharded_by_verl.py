"""The same shards, put together by verl's own merger: our bfloat16 is its output."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest
import torch

from relex_merge.weights.sharded import open_sharded
from relex_merge.weights.source import read_numbers
from tests.support.sharded_runs import ShardedRuns


@pytest.mark.parametrize("layout", ["fsdp2-2", "fsdp2-3", "plain"])
def test_bfloat16_of_ours_is_what_verls_merger_makes(
    sharded_runs: ShardedRuns, layout: str
) -> None:
    try:
        merger = importlib.import_module("verl.model_merger.fsdp_model_merger").FSDPModelMerger
    except Exception as error:  # whatever stops it: it is not installed, or not for transformers 5
        pytest.skip(f"verl's merger cannot be imported here: {error}")
    found = sharded_runs.sharded(layout)
    theirs = merger.__new__(merger)
    theirs.config = SimpleNamespace(local_dir=str(found.folder))
    world = theirs._get_world_size()
    first = theirs._load_rank_zero_state_dict(world)
    mesh, names = theirs._extract_device_mesh_info(first, world)
    total, shape = theirs._calculate_shard_configuration(mesh, names)
    merged = theirs._load_and_merge_state_dicts(world, total, shape, names)
    source = open_sharded(found, "the model")
    assert set(merged) == set(source.tensors)
    for name, tensor in merged.items():
        ours = read_numbers(source, name, 0, tensor.numel()).to(torch.bfloat16)
        assert torch.equal(ours, tensor.reshape(-1)), name
