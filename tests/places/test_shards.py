"""Promises about shards in an object store: read there in ranges, the same bytes as on the disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import relex_merge
from relex_merge.checkpoints.find import find
from relex_merge.checkpoints.series import NothingFoundError
from relex_merge.errors import RelexError
from relex_merge.places.ranges import Transfers
from tests.support.models import write_recipe
from tests.support.object_store import Store
from tests.support.sharded_runs import STEPS, ShardedRuns
from tests.support.terminal import Command

pytestmark = pytest.mark.usefixtures("no_figure")
WEIGHTS = "model.safetensors"


def put(store: Store, runs: ShardedRuns, layout: str) -> str:
    """Copy a run and the base that it started from; the address of the run."""
    store.put(runs.series.base, "base")
    return store.put(runs.root / layout, "run")


def recipe_of(models: list[Any], base: object) -> dict[str, Any]:
    return {
        "merge_method": "relex",
        "base_model": str(base),
        "models": [{"model": str(model)} for model in models],
        "parameters": {"target_step": 20},
    }


@pytest.mark.parametrize(
    ("layout", "name"),
    [("fsdp2-3", "global_step_{5..15..5}/actor"), ("trainer-2", "checkpoint-{5..15..5}")],
)
def test_shards_in_a_store_become_a_recipe_that_runs_as_from_the_disk(
    memory: Store,
    sharded_runs: ShardedRuns,
    relex: Command,
    tmp_path: Path,
    places_cache: Path,
    layout: str,
    name: str,
) -> None:
    address = put(memory, sharded_runs, layout)
    far, near = tmp_path / "far.yml", tmp_path / "near.yml"
    how = ("--observe", "5-15", "--target-step", 20, "-o")
    done = relex("recipe", address, "--base", f"{memory.address}/base", *how, far)
    assert done.code == 0, done.err
    assert yaml.safe_load(far.read_text())["models"] == [{"model": f"{address}/{name}"}]
    base = sharded_runs.series.base
    assert relex("recipe", sharded_runs.root / layout, "--base", base, *how, near).code == 0
    for recipe in (far, near):
        ran = relex("run", "--yes", recipe, tmp_path / recipe.stem, "--quiet")
        assert ran.code == 0, ran.err
    files = {p.name for p in (tmp_path / "near").iterdir()}
    assert {p.name for p in (tmp_path / "far").iterdir()} == files
    assert (tmp_path / "far" / WEIGHTS).read_bytes() == (tmp_path / "near" / WEIGHTS).read_bytes()
    assert relex("inspect", far).code == 0
    kept = [path.name for path in places_cache.rglob("*")]
    assert not [name for name in kept if name.endswith((".pt", ".distcp", ".safetensors"))]
