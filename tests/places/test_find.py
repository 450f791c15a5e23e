"""Discovery in an object store: what a trainer leaves there becomes a recipe that runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

import relex_merge
from relex_merge.checkpoints.find import find
from relex_merge.errors import RelexError
from tests.support.adapters import make_adapters
from tests.support.local_runs import make_run
from tests.support.models import Series, make_series
from tests.support.object_store import Store
from tests.support.terminal import Command


@pytest.fixture
def run(memory: Store, tmp_path: Path) -> Store:
    """A run of the Trainer, with optimizer states and all, and its base beside it."""
    folder, series = make_run(tmp_path / "local", shards=2)
    memory.put(folder, "run")
    memory.put(series.base, "base")
    return memory


def test_a_run_in_a_store_becomes_a_recipe_that_runs(
    s3: Store, relex: Command, tmp_path: Path, no_figure: None
) -> None:
    folder, series = make_run(tmp_path / "local")
    s3.put(folder, "run")
    s3.put(series.base, "base")
    path = tmp_path / "recipe.yml"
    done = relex("recipe", f"{s3.address}/run/", "--base", f"{s3.address}/base/", "-o", path)
    assert done.code == 0, done.err
    settings = yaml.safe_load(path.read_text())
    assert settings == {
        "merge_method": "relex",
        "base_model": f"{s3.address}/base",
        "models": [{"model": f"{s3.address}/run/checkpoint-{{5..15..5}}"}],
        "parameters": {"target_step": 100},
    }
    assert "transformers" in done.err
    relex_merge.extrapolate(path, tmp_path / "far", quiet=True)
    relex_merge.extrapolate(series.recipe(100), tmp_path / "near", quiet=True)
    far, near = (tmp_path / name / "model.safetensors" for name in ("far", "near"))
    assert far.read_bytes() == near.read_bytes()


def test_what_a_listing_says_of_a_checkpoint(run: Store, s3: Store, series: Series) -> None:
    found = find(f"{run.address}/run")
    assert (found.layout, found.steps, found.last_step) == ("transformers", [5, 10, 15], 100)
    first = found.checkpoints[0]
    sizes = run.names("run", "checkpoint-5")
    assert first.size == sum(size for name, size in sizes.items() if name.startswith("model-"))
    assert (first.dtype, first.kind, first.sha) == ("F32", "model", None)
    s3.put_series(series)
    assert find(f"{s3.address}/run").checkpoints[0].date  # memory does not keep it


def test_verl_folders_and_adapters_are_told_apart(memory: Store, tmp_path: Path) -> None:
    adapters = make_adapters(tmp_path / "lora", steps=(10, 20))
    for step, folder in zip(adapters.steps, adapters.folders, strict=True):
        memory.put(folder, f"run/global_step_{step}/actor/lora_adapter")
        memory.put(adapters.base, f"run/global_step_{step}/actor/huggingface")
        memory.put(adapters.base, f"run/global_step_{step}/critic/huggingface")
    found = find(f"{memory.address}/run")
    assert found.layout == "verl"
    assert [c.kind for c in found.checkpoints] == ["model", "model"]
    assert any("adapters" in note for note in found.notes)
    lora = find(f"{memory.address}/run", r"step_(\d+)/actor/lora")
    assert [c.kind for c in lora.checkpoints] == ["adapter", "adapter"]


def test_a_checkpoint_without_a_shard_is_left_out(run: Store) -> None:
    run.files.rm(run.path("run", "checkpoint-10", "model-00002-of-00002.safetensors"))
    found = find(f"{run.address}/run")
    assert found.steps == [5, 15]
    assert any("checkpoint-10 was left out: no model-00002" in note for note in found.notes)


def test_a_configuration_may_name_a_base_in_a_store(memory: Store, tmp_path: Path) -> None:
    series = make_series(tmp_path / "series", steps=(1, 2, 3))
    config = json.loads((series.checkpoints[0] / "config.json").read_text())
    config["_name_or_path"] = f"{memory.address}/base"
    (series.checkpoints[0] / "config.json").write_text(json.dumps(config))
    memory.put_series(series)
    found = find(f"{memory.address}/run")
    assert found.base is not None
    assert found.base.reference == f"{memory.address}/base"


def test_a_base_of_another_model_is_refused(run: Store, relex: Command, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "local")
    other = make_series(tmp_path / "other", steps=(1, 2), hidden_size=32)
    run.put(other.base, "other")
    done = relex("recipe", f"{run.address}/run", "--base", f"{run.address}/other")
    assert done.code == 1
    assert "does not fit: its hidden_size is 32" in done.err


@pytest.mark.parametrize(
    ("below", "message"),
    [
        ("nowhere", "does not exist, or nothing is in it; in memory://"),
        ("run/checkpoint-5", "it holds one model and no series; give the folder above it"),
        ("run/checkpoint-5/config.json", "is a file; give the folder that it lies in"),
    ],
)
def test_where_no_series_is(run: Store, below: str, message: str) -> None:
    with pytest.raises(RelexError, match=message):
        find(f"{run.address}/{below}")


def test_a_series_block_names_a_store(run: Store) -> None:
    recipe = {
        "merge_method": "relex",
        "base_model": f"{run.address}/base",
        "series": {"folder": f"{run.address}/run", "observe": "5-10"},
        "parameters": {"target_step": 20},
    }
    report = relex_merge.inspect(recipe, quiet=True)
    assert [entry["step"] for entry in report["checkpoints"]] == [5, 10]
