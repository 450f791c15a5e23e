"""The whole job over HTTP: revisions of a Hub repo in, an extrapolated revision out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from mergekit.config import MergeConfiguration
from transformers import AutoModelForCausalLM, AutoTokenizer

import relex_merge
from tests.fake_hub import Fault, Hub
from tests.fake_hub.access import Token
from tests.fake_hub.building import WRITE_TOKEN
from tests.support.hub_series import BASE, RUN, STREAMS, recipe, run
from tests.support.models import (
    STEPS,
    TEMPLATE,
    Series,
    expected,
    read_weights,
    worst_error,
    write_recipe,
)
from tests.support.terminal import Command

FLOAT32 = 1e-6
pytestmark = pytest.mark.usefixtures("no_figure")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# the whole way


def test_five_revisions_become_a_sixth_that_loads(
    relex: Command,
    hub: Hub,
    hub_login: Token,
    pins: dict[str, str],
    local: Series,
    tmp_path: Path,
) -> None:
    path = write_recipe(
        tmp_path / "r.yml",
        recipe(f"{RUN}@step_{{1..2}}", f"{RUN}@step_4", f"{RUN}@step_7", f"{RUN}@step_9"),
    )
    before, main = hub.heads(RUN), hub.files(RUN)
    done = relex("run", "--yes", path, tmp_path / "out", "--push-to", RUN, "--quiet")
    assert done.code == 0, done.err

    # one commit on a revision of its own, a card on the empty main; nothing else moved
    heads = hub.heads(RUN)
    assert {k: v for k, v in heads.items() if k != "relex-step-20"} == {
        **before,
        "main": heads["main"],
    }
    assert hub.files(RUN).keys() == main.keys() | {"README.md"}
    assert len(hub.requests("POST .*/commit/")) == 2
    assert hub.files(RUN, "relex-step-20").keys() == names(tmp_path / "out")

    # it loads from the Hub, as the last lines of the output say
    where = {"revision": "relex-step-20"}
    assert f'from_pretrained("{RUN}", revision="relex-step-20")' in done.out
    assert f"{hub.url}/{RUN}/tree/relex-step-20" in done.out
    model = AutoModelForCausalLM.from_pretrained(RUN, **where)
    want = expected(local)
    state = {n: w for n, w in model.state_dict().items() if n in want}
    assert worst_error(state, want) < FLOAT32
    tokenizer = AutoTokenizer.from_pretrained(RUN, **where)
    assert tokenizer.chat_template == TEMPLATE
    assert torch.isfinite(model(**tokenizer("1 + 2 =", return_tensors="pt")).logits).all()

    # the report names the commits that were read
    report = json.loads(hub.files(RUN, "relex-step-20")["relex_report.json"])
    assert report["base"] == {"reference": BASE, "sha": pins[BASE]}
    assert [(c["reference"], c["sha"]) for c in report["checkpoints"]] == [
        (name, sha) for name, sha in pins.items() if name != BASE
    ]
    assert [c["step"] for c in report["checkpoints"]] == list(STEPS)
    written = yaml.safe_load(hub.files(RUN, "relex-step-20")["mergekit_config.yml"])
    assert len(MergeConfiguration.model_validate(written).models or []) == len(STEPS)

    # and the card is one that the Hub accepts, with the base's license
    card = ModelCard(hub.files(RUN, "relex-step-20")["README.md"].decode())
    card.validate()
    front = yaml.safe_load(hub.files(RUN, "relex-step-20")["README.md"].split(b"---")[1])
    assert front["base_model"] in (BASE, [BASE])
    assert (front["license"], front["base_model_relation"]) == ("mit", "merge")

    # nothing of this machine, and no token, went out
    pushed = b"".join(hub.files(RUN, "relex-step-20").values())
    for secret in (WRITE_TOKEN, str(tmp_path), str(local.base.parent)):
        assert secret.encode() not in pushed
        assert secret == str(tmp_path) or secret not in done.out + done.err


@STREAMS
def test_the_model_is_that_of_the_same_series_on_the_disk(
    stream: bool, pins: dict[str, str], local: Series, tmp_path: Path
) -> None:
    result = run(tmp_path / "out", stream)
    same = relex_merge.extrapolate(local.recipe(20), tmp_path / "same", quiet=True)
    ours, other = read_weights(result.out), read_weights(same.out)
    assert ours.keys() == other.keys()
    assert all(torch.equal(ours[n], other[n]) for n in ours)
    assert result.report["tensors"] == same.report["tensors"]


def test_in_ranges_no_weights_are_stored_and_none_is_read_twice(
    hub: Hub, pins: dict[str, str], tmp_path: Path
) -> None:
    run(tmp_path / "out", True)
    sizes = [
        file.size
        for repo in hub.repos.values()
        for sha in repo.branches.values()
        for name, file in repo.commits[sha].files.items()
        if name.endswith(".safetensors")
    ]
    # The first request for a file guesses the length of its header: 64 kB, here most of the file.
    headers = sum(min(size, 2**16) for size in sizes)
    assert hub.log.bytes_sent("GET /cdn/.*safetensors") < 1.1 * sum(sizes) + headers
    from huggingface_hub import constants

    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.safetensors"))


@STREAMS
def test_a_dry_run_reads_headers_alone(
    stream: bool, relex: Command, hub: Hub, pins: dict[str, str], tmp_path: Path
) -> None:
    from huggingface_hub import constants

    path = write_recipe(tmp_path / "r.yml", recipe())
    how = "--stream" if stream else "--no-stream"
    done = relex("run", "--yes", path, tmp_path / "out", "--dry-run", how)
    assert done.code == 0, done.err
    assert "from the Hub" in done.out
    assert ("downloaded to the cache first" in done.out) is not stream
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.safetensors"))
    assert not (tmp_path / "out").exists()


def test_a_default_run_reads_in_ranges_and_uses_the_cache_where_it_is_filled(
    hub: Hub, pins: dict[str, str], tmp_path: Path
) -> None:
    run(tmp_path / "first", False)
    hub.log.clear()
    run(tmp_path / "second")
    assert hub.log.bytes_sent("GET /cdn/.*safetensors") == 0
    first, second = read_weights(tmp_path / "first"), read_weights(tmp_path / "second")
    assert all(torch.equal(first[n], second[n]) for n in first)


# references


@STREAMS
def test_branches_tags_and_shas_are_all_revisions(
    stream: bool, hub: Hub, pins: dict[str, str], local: Series, tmp_path: Path
) -> None:
    hub.tag(RUN, "v2-step-4", at="step_4")
    sha = pins[f"{RUN}@step_7"]
    made = recipe(f"{RUN}@step_1", f"{RUN}@step_2", f"{RUN}@v2-step-4", f"{RUN}@{sha}")
    made["models"][3]["parameters"] = {"step": 7}
    made["models"].append({"model": f"{RUN}@step_9"})
    result = relex_merge.extrapolate(made, tmp_path / "out", stream=stream, quiet=True)
    assert worst_error(read_weights(result.out), expected(local)) < FLOAT32
    assert [c["sha"] for c in result.report["checkpoints"]] == list(pins.values())[1:]


@STREAMS
def test_a_branch_that_moves_in_the_middle_changes_nothing(
    stream: bool, hub: Hub, pins: dict[str, str], local: Series, tmp_path: Path
) -> None:
    poison = hub.commit(RUN, {"config.json": b"{}"}, branch="poison", replace=True)

    def move() -> None:
        for step in STEPS:
            hub.branch(RUN, f"step_{step}", at=poison)

    # every reference has been pinned when the first weights are asked for
    moved = hub.faults.add(Fault("GET /cdn/.*safetensors", times=1, action=move))
    result = run(tmp_path / "out", stream)
    assert moved.fired
    assert worst_error(read_weights(result.out), expected(local)) < FLOAT32
    assert [c["sha"] for c in result.report["checkpoints"]] == list(pins.values())[1:]


@STREAMS
def test_each_moving_reference_is_looked_at_once(
    stream: bool, hub: Hub, pins: dict[str, str], tmp_path: Path
) -> None:
    run(tmp_path / "out", stream)
    for step in STEPS:
        assert len(hub.requests(f"/revision/step_{step}([?]|$)")) == 1
        assert not hub.requests(f"/resolve/step_{step}/")
