"""Promises about checkpoints in folders of one Hub revision, ``owner/name/folder@revision``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import constants

import relex_merge
from relex_merge.errors import RelexError
from tests.fake_hub import Hub
from tests.fake_hub.access import Token
from tests.support.hub_series import BASE, RUN, STREAMS
from tests.support.models import STEPS, Series, expected, read_weights, worst_error, write_recipe
from tests.support.refusals import sliced
from tests.support.terminal import Command

FLOAT32 = 1e-6
NAMES = ("checkpoint-{}", "global_step_{}/actor/huggingface")
pytestmark = pytest.mark.usefixtures("no_figure")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sha(hub: Hub, local: Series, name: str) -> str:
    """The series in folders of ``main``, optimizers beside them, and a model of no use on top."""
    hub.commit_folder(BASE, local.base)
    hub.commit_folder(RUN, local.base)
    files: dict[str, bytes | str | Path | None] = {"pytorch_model.bin": b"not a model"}
    for step, folder in zip(local.steps, local.checkpoints, strict=True):
        place = name.format(step)
        files |= {f"{place}/{path.name}": path for path in folder.iterdir()}
        files |= {f"{place}/optimizer.pt": b"0" * 100, f"{place}/x/y.safetensors": b"no"}
    return hub.commit(RUN, files)


def recipe(name: str, revision: str = "main", **changes: Any) -> dict[str, Any]:
    return {
        "merge_method": "relex",
        "base_model": BASE,
        "models": [{"model": f"{RUN}/{name.format(step)}@{revision}"} for step in STEPS],
        "parameters": {"target_step": 20},
        **changes,
    }


@STREAMS
def test_a_series_in_folders_is_the_same_as_on_the_disk(
    stream: bool, hub: Hub, sha: str, name: str, local: Series, tmp_path: Path
) -> None:
    made = recipe(name)
    result = relex_merge.extrapolate(made, tmp_path / "out", stream=stream, quiet=True)
    assert worst_error(read_weights(result.out), expected(local)) < FLOAT32
    assert [(c["reference"], c["step"], c["sha"]) for c in result.report["checkpoints"]] == [
        (entry["model"], step, sha) for entry, step in zip(made["models"], STEPS, strict=True)
    ]
    # the tokenizer comes from the last folder, not from the top
    assert (result.out / "chat_template.jinja").is_file()
    # one look at a revision that may move, however many folders are read
    assert len(hub.requests(r"/api/models/org/run/revision/main([?]|$)")) == 1
    read = {entry.file for entry in hub.requests(r"GET /cdn/org/run/")}
    assert read == {
        f"{name.format(s)}/model-0000{i}-of-00002.safetensors" for s in STEPS for i in (1, 2)
    }
    stored = list(Path(constants.HF_HUB_CACHE).rglob("*.safetensors"))
    assert bool(stored) is not stream
    assert not list(Path(constants.HF_HUB_CACHE).rglob("optimizer.pt"))


def test_without_a_revision_folders_of_the_default_branch_are_read(
    sha: str, name: str, local: Series, tmp_path: Path
) -> None:
    made = recipe(name)
    for entry in made["models"]:
        entry["model"] = entry["model"].removesuffix("@main")
    result = relex_merge.extrapolate(made, tmp_path / "out", quiet=True)
    assert worst_error(read_weights(result.out), expected(local)) < FLOAT32
    assert result.report["checkpoints"][0]["sha"] == sha


def test_what_is_in_the_cache_is_read_there_and_offline(
    hub: Hub,
    sha: str,
    name: str,
    local: Series,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    relex_merge.extrapolate(recipe(name), tmp_path / "a", stream=False, quiet=True)
    hub.log.clear()
    relex_merge.extrapolate(recipe(name), tmp_path / "b", quiet=True)
    assert hub.log.bytes_sent("GET /cdn/.*safetensors") == 0
    request.getfixturevalue("offline")
    result = relex_merge.extrapolate(recipe(name), tmp_path / "c", quiet=True)
    assert worst_error(read_weights(result.out), expected(local)) < FLOAT32
    other = recipe("elsewhere-{}")
    with pytest.raises(RelexError, match="folder elsewhere-1 of org/run is not in the cache"):
        relex_merge.extrapolate(other, tmp_path / "d", quiet=True)


def test_mergekits_own_path_reads_folders_too(
    sha: str, name: str, local: Series, tmp_path: Path
) -> None:
    made = sliced(recipe(name))
    result = relex_merge.extrapolate(made, tmp_path / "out", quiet=True)
    assert worst_error(read_weights(result.out), expected(local)) < 1e-5
    assert [c["step"] for c in result.report["checkpoints"]] == list(STEPS)


def test_inspect_and_holdout_read_folders(sha: str, name: str, local: Series) -> None:
    made = recipe(name)
    last = made["models"].pop()["model"]
    report = relex_merge.inspect(made, holdout=[last], quiet=True)
    same = local.recipe(20)
    held = same["models"].pop()["model"]
    wanted = relex_merge.inspect(same, holdout=[held], quiet=True)
    assert report["tensors"] == wanted["tensors"]


def test_the_matrices_of_other_folders_of_the_same_commit_are_not_reused(
    hub: Hub, sha: str, name: str, local: Series, tmp_path: Path
) -> None:
    """All folders share a commit, so the commit alone does not say what was read."""
    relex_merge.extrapolate(recipe(name), tmp_path / "a", quiet=True)
    relex_merge.extrapolate(recipe(name), tmp_path / "b", reuse=tmp_path / "a", quiet=True)
    moved = recipe(name)
    for entry, step in zip(moved["models"], [*STEPS[1:], STEPS[0]], strict=True):
        entry["model"] = f"{RUN}/{name.format(step)}@main"
    for entry, step in zip(moved["models"], STEPS, strict=True):
        entry["parameters"] = {"step": step}
    with pytest.raises(RelexError, match="formed from other checkpoints"):
        relex_merge.extrapolate(moved, tmp_path / "c", reuse=tmp_path / "a", quiet=True)


def test_an_output_made_from_folders_is_pushed_with_links_to_them(
    relex: Command,
    hub: Hub,
    hub_login: Token,
    sha: str,
    name: str,
    tmp_path: Path,
) -> None:
    path = write_recipe(tmp_path / "r.yml", recipe(name))
    done = relex("run", "--yes", path, tmp_path / "out", "--push-to", "tester/end", "--quiet")
    assert done.code == 0, done.err
    card = hub.files("tester/end", "relex-step-20")["README.md"].decode()
    place = name.format(STEPS[0])
    hub_page = f"https://huggingface.co/{RUN}"
    assert (
        f"[`{RUN}/{place}@main`]({hub_page}) at [`{sha[:8]}`]({hub_page}/tree/{sha}/{place})"
        in card
    )
    written = yaml.safe_load(hub.files("tester/end", "relex-step-20")["mergekit_config.yml"])
    assert written["models"][0]["model"] == f"{RUN}/{place}@main"
    report = json.loads(hub.files("tester/end", "relex-step-20")["relex_report.json"])
    assert report["checkpoints"][0]["reference"] == f"{RUN}/{place}@main"


def test_a_base_in_a_folder(hub: Hub, local: Series, tmp_path: Path) -> None:
    files = {f"models/base/{path.name}": path for path in local.base.iterdir()}
    hub.commit("org/zoo", dict(files))
    made = {**local.recipe(20), "base_model": "org/zoo/models/base@main"}
    result = relex_merge.extrapolate(made, tmp_path / "out", quiet=True)
    assert worst_error(read_weights(result.out), expected(local)) < FLOAT32
    assert "base_model: org/zoo\n" in (result.out / "README.md").read_text()


# bad input


def test_a_folder_that_the_revision_does_not_have(
    hub: Hub, sha: str, name: str, tmp_path: Path
) -> None:
    made = recipe(name)
    made["models"][1]["model"] = f"{RUN}/{name.format(3)}@main"
    with pytest.raises(RelexError) as caught:
        relex_merge.extrapolate(made, tmp_path / "out", quiet=True)
    message = str(caught.value)
    assert f"{RUN} at {sha[:8]} has no files in its folder {name.format(3)!r}" in message
    assert name.format(2) in message


def test_a_missing_folder_may_have_been_meant_here_or_on_the_hub(
    hub: Hub, local: Series, tmp_path: Path
) -> None:
    made = local.recipe(20)
    made["models"][1]["model"] = "runs/grpo/checkpoint-3"
    with pytest.raises(RelexError) as caught:
        relex_merge.extrapolate(made, tmp_path / "out", quiet=True)
    message = str(caught.value)
    assert "runs/grpo/checkpoint-3 is no folder on this disk" in message
    assert (
        "cannot be folder checkpoint-3 of a repo on the Hub: runs/grpo is not on the Hub" in message
    )
    made["models"][1]["model"] = "runs/../checkpoint-3"
    with pytest.raises(RelexError, match="does not exist; it was taken for a local folder"):
        relex_merge.extrapolate(made, tmp_path / "out", quiet=True)


def test_a_shard_outside_its_folder_is_refused(
    hub: Hub, sha: str, name: str, tmp_path: Path
) -> None:
    place = name.format(STEPS[1])
    index = json.dumps({"weight_map": {"x": f"../{name.format(1)}/model.safetensors"}})
    hub.commit(RUN, {f"{place}/model.safetensors.index.json": index})
    with pytest.raises(RelexError, match="lies outside its folder"):
        relex_merge.extrapolate(recipe(name), tmp_path / "out", quiet=True)


@STREAMS
def test_the_weights_are_those_of_the_commit_even_when_the_branch_moves(
    stream: bool, hub: Hub, sha: str, name: str, local: Series, tmp_path: Path
) -> None:
    def move() -> None:
        hub.commit(RUN, {"config.json": b"{}"}, replace=True)

    moved = hub.after(0, "GET /cdn/.*safetensors", move)
    moved.times = 1
    result = relex_merge.extrapolate(recipe(name), tmp_path / "out", stream=stream, quiet=True)
    assert moved.fired
    assert worst_error(read_weights(result.out), expected(local)) < FLOAT32
    assert torch.isfinite(next(iter(read_weights(result.out).values()))).all()
