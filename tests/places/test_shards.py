"""Promises about shards in an object store: read there in ranges, the same bytes as on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import relex_merge
from relex_merge.checkpoints.find import find
from relex_merge.checkpoints.locate import locate
from relex_merge.checkpoints.series import NothingFoundError
from relex_merge.errors import RelexError
from relex_merge.pipeline.prepare import Ranges, open_source
from relex_merge.places.ranges import Transfers
from relex_merge.weights.place_files import PlaceFiles
from relex_merge.weights.source import read_numbers
from tests.support.models import write_recipe
from tests.support.object_store import Store
from tests.support.sharded_runs import OF_OTHERS, OF_VERL, STEPS, ShardedRuns
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


@pytest.mark.parametrize("layout", [*OF_VERL, *OF_OTHERS])
def test_every_layout_is_opened_in_a_store_by_a_few_ranges(
    memory: Store, sharded_runs: ShardedRuns, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    folder = sharded_runs.checkpoint(layout)
    memory.put(folder, "run/step_1")
    asked: list[str] = []
    read = Transfers.read

    def counted(self: Transfers, file: Any, spans: Any) -> None:
        asked.append(file.name)
        read(self, file, spans)

    monkeypatch.setattr(Transfers, "read", counted)
    (snapshot,) = locate([f"{memory.address}/run/step_1"], stream=True)
    source = open_source(snapshot, Ranges())
    files = len(sharded_runs.sharded(layout).files)
    assert len(asked) <= 2 * files + 2  # the first file also says whether it is an adapter
    state = sharded_runs.state()
    assert set(source.tensors) == set(state)
    for name, tensor in state.items():
        numbers = read_numbers(source, name, 0, tensor.numel())
        assert torch.equal(numbers, tensor.reshape(-1))
    source.check_unchanged()


def test_world_sizes_and_forms_may_differ_between_steps_in_a_store(
    s3: Store, sharded_runs: ShardedRuns, tmp_path: Path
) -> None:
    layouts = ("fsdp2-2", "fsdp2-3", "dcp-3")
    near = [sharded_runs.checkpoint(n, step) for n, step in zip(layouts, (5, 10, 15), strict=True)]
    far = [s3.put(folder, f"run/step_{5 * n}") for n, folder in enumerate(near, start=1)]
    base = sharded_runs.series.base
    for name, models in (("near", near), ("far", far)):
        relex_merge.extrapolate(recipe_of(models, base), tmp_path / name, quiet=True)
    assert (tmp_path / "far" / WEIGHTS).read_bytes() == (tmp_path / "near" / WEIGHTS).read_bytes()


def test_the_base_may_be_the_step_0_of_a_run_in_a_store(
    memory: Store, sharded_runs: ShardedRuns, tmp_path: Path
) -> None:
    address = put(memory, sharded_runs, "fsdp2-2")
    found = find(address)
    assert (found.layout, found.steps) == ("fsdp", [0, *STEPS])
    assert found.base is not None
    assert found.base.reference == f"{address}/global_step_0/actor"
    first = found.checkpoints[0]
    assert (first.dtype, first.kind) == ("F32", "model")
    assert first.size == sharded_runs.sharded("fsdp2-2", 0).size
    for streamed in (True, False):
        recipe = recipe_of([c.reference for c in found.checkpoints[1:]], found.base.reference)
        out = tmp_path / str(streamed)
        relex_merge.extrapolate(recipe, out, quiet=True, stream=streamed)
    made = [(tmp_path / name / WEIGHTS).read_bytes() for name in ("True", "False")]
    assert made[0] == made[1]


def test_adapters_in_shards_in_a_store(
    memory: Store, sharded_runs: ShardedRuns, tmp_path: Path
) -> None:
    address = memory.put(sharded_runs.root / "lora", "run")
    found = find(address)
    assert [c.kind for c in found.checkpoints] == ["adapter"] * len(STEPS)
    base, file = sharded_runs.adapters.base, "adapter_model.safetensors"
    near = [sharded_runs.checkpoint("lora", step) for step in STEPS]
    for name, models in (("far", [c.reference for c in found.checkpoints]), ("near", near)):
        relex_merge.extrapolate(recipe_of(models, base), tmp_path / name, quiet=True)
    assert (tmp_path / "far" / file).read_bytes() == (tmp_path / "near" / file).read_bytes()


def test_a_checkpoint_without_a_rank_is_left_out_and_cannot_be_run(
    memory: Store, sharded_runs: ShardedRuns, tmp_path: Path
) -> None:
    address = put(memory, sharded_runs, "fsdp2-3")
    actor = memory.path("run/global_step_10/actor")
    memory.files.rm(f"{actor}/model_world_size_3_rank_1.pt")
    found = find(address)
    assert found.steps == [0, 5, 15]
    said = "rank 1 of 3 missing: it is still being written"
    assert any(f"global_step_10/actor was left out: {said}" in note for note in found.notes)
    models = [f"{address}/global_step_{step}/actor" for step in STEPS]
    with pytest.raises(RelexError, match=f"run/global_step_10/actor: {said}"):
        relex_merge.inspect(recipe_of(models, f"{memory.address}/base"), quiet=True)


def test_a_dcp_folder_that_is_still_written_or_lacks_a_file_is_left_out(
    memory: Store, sharded_runs: ShardedRuns
) -> None:
    address = put(memory, sharded_runs, "trainer-2")
    inner = [memory.path(f"run/checkpoint-{step}/pytorch_model_fsdp_0") for step in STEPS]
    memory.files.rm(f"{inner[0]}/.metadata")
    memory.files.rm(f"{inner[1]}/__1_0.distcp")
    with memory.files.open(f"{inner[2]}/__0_0.distcp", "wb") as file:
        file.write(b"short")
    with pytest.raises(NothingFoundError) as caught:
        find(address)
    said = str(caught.value)
    assert "checkpoint-5: pytorch_model_fsdp_0 has no .metadata, which is written last" in said
    assert "checkpoint-10: __1_0.distcp cannot be read (No such file" in said
    assert "checkpoint-15: __0_0.distcp is cut off: 5 bytes of" in said


def test_a_truncated_rank_in_a_store_is_named(
    s3: Store, sharded_runs: ShardedRuns, relex: Command, tmp_path: Path
) -> None:
    address = put(s3, sharded_runs, "fsdp2-2")
    path = s3.path("run/global_step_10/actor/model_world_size_2_rank_1.pt")
    s3.files.pipe_file(path, s3.files.cat_file(path)[:-100])
    models = [f"{address}/global_step_{step}/actor" for step in STEPS]
    recipe = write_recipe(tmp_path / "r.yml", recipe_of(models, f"{s3.address}/base"))
    done = relex("run", "--yes", recipe, tmp_path / "out", "--quiet")
    assert done.code == 1
    assert len(done.err.splitlines()) == 1, done.err
    assert "global_step_10/actor: model_world_size_2_rank_1.pt is cut off" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["relex", "linear"])
def test_what_needs_mergekits_own_path_refuses_shards_before_they_are_here(
    memory: Store, sharded_runs: ShardedRuns, tmp_path: Path, places_cache: Path, method: str
) -> None:
    address = put(memory, sharded_runs, "fsdp2-2")
    models = [f"{address}/global_step_{step}/actor" for step in STEPS]
    recipe = {**recipe_of(models, f"{memory.address}/base"), "tokenizer": {"source": "base"}}
    if method == "linear":
        recipe = {"merge_method": "linear", "models": recipe["models"], "dtype": "float32"}
        recipe["parameters"] = {"weight": 1.0}
    with pytest.raises(RelexError, match="is in shards, which do not go with what needs mergekit"):
        relex_merge.extrapolate(recipe, tmp_path / "out", quiet=True)
    assert not list(places_cache.rglob("*.pt"))


@pytest.mark.parametrize(
    ("layout", "name", "file"),
    [
        ("fsdp2-2", "global_step_{}/actor", "model_world_size_2_rank_1.pt"),
        ("trainer-2", "checkpoint-{}", "pytorch_model_fsdp_0/__1_0.distcp"),
    ],
)
def test_a_shard_that_changes_during_a_run_is_named(
    memory: Store,
    sharded_runs: ShardedRuns,
    relex: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: str,
    name: str,
    file: str,
) -> None:
    address = put(memory, sharded_runs, layout)
    models = [f"{address}/{name.format(step)}" for step in STEPS]
    recipe = write_recipe(tmp_path / "r.yml", recipe_of(models, f"{memory.address}/base"))
    changed = f"{name.format(10)}/{file}"
    fill = PlaceFiles.fill
    once: list[int] = []

    def rewritten(self: PlaceFiles, wanted: Any) -> None:
        fill(self, wanted)
        if not once:
            once.append(1)
            path = memory.path("run", changed)
            data = memory.files.cat_file(path)
            memory.files.pipe_file(path, data[:-1] + bytes([data[-1] ^ 1]))

    monkeypatch.setattr(PlaceFiles, "fill", rewritten)
    done = relex("run", "--yes", recipe, tmp_path / "out", "--quiet")
    assert done.code == 1
    assert f"{address}/{changed} changed during the run" in done.err
    assert not (tmp_path / "out").exists()


def test_shards_in_a_store_are_evaluated_as_on_the_disk(
    memory: Store, sharded_runs: ShardedRuns, tmp_path: Path
) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text('{"prompt": "a b", "response": "c d e"}\n' * 4)
    layout = "fsdp2-2"
    near = {step: sharded_runs.checkpoint(layout, step) for step in (0, *STEPS)}
    far = {step: memory.put(folder, f"run/step_{step}") for step, folder in near.items()}
    found = []
    for base, *models in (near.values(), far.values()):
        done = relex_merge.evaluate(recipe_of(models, base), text=text, scales=[1], quiet=True)
        found.append([entry["kl"] for entry in done["function"]["candidates"]])
    assert found[0]
    assert found[1] == pytest.approx(found[0], rel=1e-6)
