"""Promises about runs over shards: what comes out is what safetensors of the same weights give."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import relex_merge
from relex_merge.errors import RelexError
from tests.support.models import expected, read_weights, worst_error, write_model, write_recipe
from tests.support.sharded_runs import STEPS, ShardedRuns
from tests.support.terminal import Command

FLOAT32 = 1e-6
pytestmark = pytest.mark.usefixtures("no_figure")


@pytest.mark.parametrize("layout", ["fsdp2-3", "trainer-2"])
def test_a_folder_of_shards_becomes_a_recipe_that_runs(
    relex: Command, sharded_runs: ShardedRuns, tmp_path: Path, layout: str
) -> None:
    path, base = tmp_path / "r.yml", sharded_runs.series.base
    done = relex(
        *("recipe", sharded_runs.root / layout, "--base", base, "--observe", "5-15"),
        *("--target-step", 20, "-o", path),
    )
    assert done.code == 0, done.err
    models = yaml.safe_load(path.read_text())["models"]
    names = {"fsdp2-3": "global_step_{5..15..5}/actor", "trainer-2": "checkpoint-{5..15..5}"}
    assert models == [{"model": f"{sharded_runs.root}/{layout}/{names[layout]}"}]
    ran = relex("run", "--yes", path, tmp_path / "out", "--quiet")
    assert ran.code == 0, ran.err
    made = read_weights(tmp_path / "out")
    assert worst_error(made, expected(sharded_runs.series)) < FLOAT32
    assert {tensor.dtype for tensor in made.values()} == {torch.float32}
    templates = list((tmp_path / "out").glob("chat_template.jinja"))
    assert len(templates) == (layout == "fsdp2-3")  # from huggingface/; the Trainer saves none
    shown = relex("inspect", path)
    assert shown.code == 0, shown.err


def test_the_base_may_be_the_step_0_of_the_run(
    relex: Command, sharded_runs: ShardedRuns, tmp_path: Path
) -> None:
    path = tmp_path / "r.yml"
    done = relex("recipe", sharded_runs.root / "fsdp2-2", "--target-step", 20, "-o", path)
    assert done.code == 0, done.err
    actor = sharded_runs.root / "fsdp2-2/global_step_0/actor"
    assert yaml.safe_load(path.read_text())["base_model"] == str(actor)
    ran = relex("run", "--yes", path, tmp_path / "out", "--quiet")
    assert ran.code == 0, ran.err
    assert worst_error(read_weights(tmp_path / "out"), expected(sharded_runs.series)) < FLOAT32


def test_world_sizes_and_forms_may_differ_between_steps(
    sharded_runs: ShardedRuns, tmp_path: Path
) -> None:
    series = sharded_runs.series
    plain = [
        write_model(tmp_path / f"step_{step}", _config(sharded_runs), state)
        for step, state in zip(STEPS, series.states, strict=True)
    ]
    mixed = [
        sharded_runs.checkpoint("fsdp2-2", 5),
        sharded_runs.checkpoint("fsdp2-3", 10).parent,  # global_step_10 will do
        sharded_runs.checkpoint("dcp-3", 15),
    ]
    for name, folders in (("plain", plain), ("mixed", mixed)):
        recipe = {
            "merge_method": "relex",
            "base_model": str(series.base),
            "models": [{"model": str(folder)} for folder in folders],
            "parameters": {"target_step": 20},
        }
        path = write_recipe(tmp_path / f"{name}.yml", recipe)
        relex_merge.extrapolate(path, tmp_path / name, quiet=True)
    wanted = (tmp_path / "plain/model.safetensors").read_bytes()
    assert (tmp_path / "mixed/model.safetensors").read_bytes() == wanted


def _config(runs: ShardedRuns) -> object:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(runs.series.base)


def test_adapters_in_shards_give_the_adapter_that_their_folders_give(
    relex: Command, sharded_runs: ShardedRuns, tmp_path: Path
) -> None:
    path, base = tmp_path / "r.yml", sharded_runs.adapters.base
    done = relex(
        "recipe", sharded_runs.root / "lora", "--base", base, "--target-step", 20, "-o", path
    )
    assert done.code == 0, done.err
    recipe = write_recipe(tmp_path / "peft.yml", sharded_runs.adapters.recipe())
    for name, source in (("shards", path), ("peft", recipe)):
        ran = relex("run", "--yes", source, tmp_path / name, "--quiet")
        assert ran.code == 0, ran.err
    file = "adapter_model.safetensors"
    ours, theirs = (load_file(tmp_path / name / file) for name in ("shards", "peft"))
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    configs = [
        json.loads((tmp_path / name / "adapter_config.json").read_text())
        for name in ("shards", "peft")
    ]
    assert [c["target_modules"] for c in configs] == [configs[0]["target_modules"]] * 2
    assert configs[0]["lora_alpha"] == configs[1]["lora_alpha"]


def test_an_adapter_without_its_scaling_is_refused(
    sharded_runs: ShardedRuns, tmp_path: Path
) -> None:
    run = sharded_runs.copy("lora", tmp_path / "run")
    for meta in run.glob("*/actor/lora_train_meta.json"):
        meta.unlink()
    recipe = sharded_runs.adapters.recipe()
    recipe["models"] = [{"model": str(folder)} for folder in sorted(run.glob("*/actor"))]
    path = write_recipe(tmp_path / "r.yml", recipe)
    with pytest.raises(RelexError, match=r"neither adapter_config\.json nor lora_train_meta\.json"):
        relex_merge.extrapolate(path, tmp_path / "out", quiet=True)


def test_names_that_are_not_the_bases_are_shown_from_both_sides(
    sharded_runs: ShardedRuns, tmp_path: Path
) -> None:
    state = {f"net.{name}": tensor for name, tensor in sharded_runs.state().items()}
    folders = []
    for step in (1, 2):
        folders.append(tmp_path / f"global_step_{step}/actor")
        folders[-1].mkdir(parents=True)
        torch.save(state, folders[-1] / "model_world_size_1_rank_0.pt")
    recipe = sharded_runs.adapters.recipe()
    recipe["models"] = [{"model": str(folder)} for folder in folders]
    path = write_recipe(tmp_path / "r.yml", recipe)
    with pytest.raises(RelexError) as caught:
        relex_merge.extrapolate(path, tmp_path / "out", quiet=True)
    assert "only there model.embed_tokens.weight, " in str(caught.value)
    assert "only here net.model.embed_tokens.weight, " in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_shards_that_change_during_a_run_stop_it(sharded_runs: ShardedRuns, tmp_path: Path) -> None:
    from relex_merge.checkpoints.sharded import find_sharded
    from relex_merge.weights.sharded import open_sharded
    from relex_merge.weights.source import read_numbers

    run = sharded_runs.copy("fsdp2-2", tmp_path / "run")
    actor = run / "global_step_5/actor"
    found = find_sharded(actor)
    assert found is not None
    source = open_sharded(found, "the model")
    shutil.copy(run / "global_step_10/actor" / found.files[1], actor / found.files[1])
    with pytest.raises(RelexError, match=r"rank_1\.pt changed during the run"):
        read_numbers(source, "model.norm.weight", 0, 16)
    with pytest.raises(RelexError, match=r"rank_1\.pt changed during the run"):
        source.check_unchanged()
    again = open_sharded(found, "the model")
    assert again.fingerprint() != source.fingerprint()


def test_what_needs_mergekits_own_path_says_that_shards_do_not_go_with_it(
    sharded_runs: ShardedRuns, tmp_path: Path
) -> None:
    recipe = {
        "merge_method": "relex",
        "base_model": str(sharded_runs.series.base),
        "models": [{"model": str(sharded_runs.checkpoint("fsdp2-2", step))} for step in STEPS],
        "parameters": {"target_step": 20},
        "tokenizer": {"source": "base"},
    }
    path = write_recipe(tmp_path / "r.yml", recipe)
    with pytest.raises(RelexError, match="is in shards, which do not go with what needs mergekit"):
        relex_merge.extrapolate(path, tmp_path / "out", quiet=True)
