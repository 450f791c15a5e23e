"""Promises of ``relex-merge recipe``: from a repo or folder to a recipe that runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import relex_merge
from tests.fake_hub import Hub
from tests.support.adapters import make_adapters
from tests.support.models import (
    STEPS,
    Series,
    expected,
    make_config,
    make_series,
    make_state,
    read_weights,
    worst_error,
    write_model,
)
from tests.support.terminal import Command
from tests.support.trainer_run import PLANNED, SAVED, train

FLOAT32 = 1e-6
RUN = "org/run"
BASE = "org/base"
pytestmark = pytest.mark.usefixtures("no_figure")


@pytest.fixture
def pins(hub: Hub, series: Series) -> dict[str, str]:
    """Branches step_1 … step_9 and a card on main that names the base."""
    hub.commit_folder(BASE, series.base)
    found = {}
    for step, folder in zip(STEPS, series.checkpoints, strict=True):
        found[f"{RUN}@step_{step}"] = hub.commit_folder(RUN, folder, branch=f"step_{step}")
    hub.commit(RUN, {"README.md": f"---\nbase_model: {BASE}\n---\n"})
    return found


# a recipe that runs


def test_a_repo_becomes_a_recipe_that_runs(
    relex: Command, pins: dict[str, str], series: Series, tmp_path: Path
) -> None:
    path = tmp_path / "r.yml"
    done = relex("recipe", RUN, "--target-step", 20, "-o", path)
    assert done.code == 0, done.err
    assert done.out == f"wrote {path}\n"
    settings = yaml.safe_load(path.read_text())
    assert settings == {
        "merge_method": "relex",
        "base_model": BASE,
        "models": [{"model": f"{RUN}@step_{s}"} for s in STEPS],
        "parameters": {"target_step": 20},
    }
    # the base was not given, and that is said in the recipe and in the table
    where = f"base_model in the model card of {RUN}"
    assert f"base_model: {BASE}  # {where}; check it\n" in path.read_text()
    assert f"base: {BASE} (proposed by {where})" in done.err
    ran = relex("run", "--yes", path, tmp_path / "out", "--yes", "--quiet")
    assert ran.code == 0, ran.err
    assert worst_error(read_weights(tmp_path / "out"), expected(series)) < FLOAT32


def test_commits_become_a_recipe_with_steps_written_out_that_runs(
    relex: Command, hub: Hub, series: Series, tmp_path: Path
) -> None:
    for step, folder in zip(STEPS, series.checkpoints, strict=True):
        hub.commit_folder(RUN, folder, message=f"Training in progress, step {step}")
    path = tmp_path / "r.yml"
    done = relex("recipe", RUN, "--base", series.base, "--target-step", 20, "-o", path, "--quiet")
    assert (done.code, done.err) == (0, "")
    result = relex_merge.extrapolate(path, tmp_path / "out", quiet=True)
    assert worst_error(read_weights(result.out), expected(series)) < FLOAT32


def test_folders_of_a_revision_become_a_recipe_that_runs(
    relex: Command, hub: Hub, series: Series, tmp_path: Path
) -> None:
    for step, folder in zip(STEPS, series.checkpoints, strict=True):
        hub.commit(RUN, {f"checkpoint-{step}/{p.name}": p for p in folder.iterdir()})
    path = tmp_path / "r.yml"
    done = relex("recipe", f"{RUN}@main", "--base", series.base, "--target-step", 20, "-o", path)
    assert done.code == 0, done.err
    assert yaml.safe_load(path.read_text())["models"][0] == {"model": f"{RUN}/checkpoint-1@main"}
    result = relex_merge.extrapolate(path, tmp_path / "out", quiet=True)
    assert worst_error(read_weights(result.out), expected(series)) < FLOAT32


def test_a_run_of_the_real_trainer_becomes_a_recipe_that_runs(
    relex: Command, tmp_path: Path
) -> None:
    base, out = train(tmp_path)
    path = tmp_path / "r.yml"
    done = relex("recipe", out, "--base", base, "-o", path)
    assert done.code == 0, done.err
    text = path.read_text()
    assert f"- model: {out}/checkpoint-{{2..6..2}}\n" in text
    why = "the end of the run by max_steps in trainer_state.json"
    assert f"target_step: {PLANNED}  # {why}\n" in text
    report = relex_merge.extrapolate(path, tmp_path / "model", quiet=True).report
    assert [c["step"] for c in report["checkpoints"]] == list(SAVED)
    assert report["target_step"] == PLANNED


# what is printed, and where


def test_the_recipe_goes_to_stdout_and_the_table_to_stderr(
    relex: Command, pins: dict[str, str], series: Series
) -> None:
    done = relex("recipe", RUN, "--observe", "1-4", "--target-step", 500)
    assert done.code == 0, done.err
    assert len(yaml.safe_load(done.out)["models"]) == 3
    assert done.out.startswith(
        f"# {RUN}: 3 of 5 checkpoints (branches), steps 1 to 4\nmerge_method: relex\n"
    )
    lines = done.err.splitlines()
    assert lines[0] == f"{RUN}: 5 checkpoints (branches), steps 1 to 9; observed: 3"
    assert lines[2].split() == ["step", "reference", "sha", "size", "dtype", "date"]
    row = lines[3].split()
    size = (series.checkpoints[0] / "model.safetensors").stat().st_size
    sha = pins[f"{RUN}@step_1"][:8]
    assert row[:3] == ["1", f"{RUN}@step_1", sha]
    assert row[3:6] == [f"{size / 1000:.3g}", "kB", "F32"]
    assert len(row) == 8  # and the date, in two words


def test_json_is_alone_on_stdout(
    relex: Command, pins: dict[str, str], series: Series, tmp_path: Path
) -> None:
    done = relex("recipe", RUN, "--json", "--observe", "50%", "-o", tmp_path / "r.yml")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert (found["source"], found["layout"], found["last_step"]) == (RUN, "branches", 9)
    assert found["base"] == {
        "reference": BASE,
        "found_in": f"base_model in the model card of {RUN}",
    }
    assert found["observed"] == [1, 2, 4]
    assert [c["sha"] for c in found["checkpoints"]] == list(pins.values())
    assert found["checkpoints"][0]["dtype"] == "F32"
    assert (tmp_path / "r.yml").read_text() == found["recipe"]


def test_without_a_target_the_end_of_the_run_is_written_and_said(
    relex: Command, pins: dict[str, str]
) -> None:
    done = relex("recipe", RUN, "--observe", "1-4", "--quiet")
    assert done.out.endswith("  target_step: 9  # the last step seen in the series\n")
    done = relex("recipe", RUN, "--quiet")
    assert "target_step: 9  # the last step seen in the series, which is observed: set" in done.out


def test_a_long_table_shows_its_ends(relex: Command, hub: Hub, series: Series) -> None:
    sha = hub.commit_folder(RUN, series.checkpoints[0], branch="step_1")
    for step in range(2, 121):
        hub.branch(RUN, f"step_{step}", at=sha)
    done = relex("recipe", RUN, "--base", series.base, "--target-step", 1_000_000)
    assert done.code == 0, done.err
    assert f"  - model: {RUN}@step_{{1..120}}\n" in done.out
    assert "target_step: 1000000\n" in done.out
    assert "… 80 more (--json lists all)" in done.err
    assert "note: size, dtype and date were looked up for 100 of 120 checkpoints" in done.err


# what is refused


def test_a_file_that_cannot_be_written_is_named(
    relex: Command, pins: dict[str, str], tmp_path: Path
) -> None:
    done = relex("recipe", RUN, "-o", tmp_path / (300 * "x"))
    assert done.code == 1
    assert "cannot write" in done.err
    assert "shorter name" in done.err


def test_a_file_that_is_there_is_not_overwritten(
    relex: Command, hub: Hub, pins: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "r.yml"
    path.write_text("mine")
    done = relex("recipe", RUN, "-o", path)
    assert done.code == 1
    assert f"{path} exists" in done.err
    assert "--force" in done.err
    assert path.read_text() == "mine"
    assert not hub.requests()  # and nothing was asked before
    assert relex("recipe", RUN, "-o", path, "--force").code == 0
    assert "merge_method" in path.read_text()
    assert relex("recipe", RUN, "-o", tmp_path / "no/r.yml").code == 2


@pytest.mark.parametrize("where", ["disk", "hub"])
def test_a_base_of_another_size_is_refused(
    where: str, relex: Command, hub: Hub, pins: dict[str, str], series: Series, tmp_path: Path
) -> None:
    config = make_config(hidden_size=32)
    folder = write_model(tmp_path / "other", config, make_state(config))
    hub.commit_folder("org/other", folder)
    other = str(folder) if where == "disk" else "org/other"
    for source in (RUN, series.base.parent):
        done = relex("recipe", source, "--base", other, "--target-step", 20)
        assert done.code == 1
        assert f"the base {other} does not fit: its hidden_size is 32, that of " in done.err
        assert "is 16" in done.err
        assert "--base" in done.err
        assert done.out == ""


def test_a_base_that_is_not_there_is_refused(
    relex: Command, hub: Hub, pins: dict[str, str], tmp_path: Path
) -> None:
    for base, said in [
        ("org/nothing", "org/nothing is not on the Hub"),
        (tmp_path / "nothing", "does not exist; it was taken for a local folder"),
        (tmp_path, "has no config.json"),
        ("not a name", "no repo id"),
    ]:
        done = relex("recipe", RUN, "--base", base)
        assert (done.code, done.out) == (1, "")
        assert said in done.err
    # one that only the card names is written down, and the doubt is said
    hub.commit(RUN, {"README.md": "---\nbase_model: org/gone\n---\n"})
    done = relex("recipe", RUN, "--target-step", 20)
    assert done.code == 0
    assert "base_model: org/gone" in done.out
    assert "could not be looked at: org/gone is not on the Hub" in done.err


def test_a_base_must_be_given_where_nothing_names_one(
    relex: Command, series: Series, tmp_path: Path
) -> None:
    done = relex("recipe", series.base.parent)
    assert done.code == 1
    assert "does not say which model the run started from" in done.err
    assert "give it with --base MODEL" in done.err


def test_steps_that_are_not_there_and_series_that_are_too_short(
    relex: Command, pins: dict[str, str]
) -> None:
    done = relex("recipe", RUN, "--observe", "3")
    assert (done.code, done.out) == (1, "")
    assert "the nearest that it has: 1, 2, 4, 7" in done.err
    done = relex("recipe", RUN, "--observe", "4")
    assert "1 checkpoint observed; a trajectory needs at least two" in done.err
    assert "for the first 4 % of the run write --observe 4%" in done.err
    done = relex("recipe", RUN, "--pattern", "step_.*")
    assert "has no group" in done.err
    done = relex("recipe", RUN, "--pattern", "step_(.*")
    assert "no regular expression" in done.err
    done = relex("recipe", "a name/that the/hub refuses")
    assert done.code == 1
    assert "no name of a Hub repo" in done.err


def test_a_run_of_adapters_becomes_a_recipe_that_runs(relex: Command, tmp_path: Path) -> None:
    made = make_adapters(tmp_path, ranks=(4, 4, 4, 2, 4))
    path = tmp_path / "r.yml"
    done = relex("recipe", tmp_path, "--target-step", 20, "-o", path)
    assert done.code == 0, done.err
    # the base is the one that the adapters name
    where = "base_model_name_or_path in checkpoint-1/adapter_config.json"
    assert f"base_model: {made.base}  # {where}; check it\n" in path.read_text()
    report = relex_merge.inspect(path, quiet=True)
    assert [c["step"] for c in report["checkpoints"]] == list(STEPS)


def test_another_base_than_the_adapters_name_is_pointed_out(
    relex: Command, series: Series, tmp_path: Path
) -> None:
    for step in (1, 2):
        folder = tmp_path / f"run/checkpoint-{step}"
        folder.mkdir(parents=True)
        config = {"base_model_name_or_path": "org/theirs", "r": 4, "peft_type": "LORA"}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        shutil.copy(
            series.checkpoints[0] / "model.safetensors", folder / "adapter_model.safetensors"
        )
    done = relex("recipe", tmp_path / "run", "--base", series.base, "--target-step", 9)
    assert done.code == 0, done.err
    assert "adapter_config.json names another base: org/theirs" in done.err


def test_help_is_fast_and_discovery_imports_nothing_heavy() -> None:
    code = (
        "import sys, relex_merge.cli.recipe, relex_merge.recipe.draft;"
        "heavy = {'torch', 'mergekit', 'transformers', 'httpx', 'peft'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_16_bit_files_are_pointed_at(dtype: torch.dtype, relex: Command, tmp_path: Path) -> None:
    series = make_series(tmp_path / "run", steps=(1, 2, 3), dtype=dtype)
    done = relex("recipe", tmp_path / "run", "--base", series.base, "--target-step", 9)
    assert done.code == 0, done.err
    said = " ".join(done.err.split())
    assert ("hold bfloat16 numbers, which round" in said) == (dtype == torch.bfloat16)
