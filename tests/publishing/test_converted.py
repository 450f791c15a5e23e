"""Promises about shards that become revisions: safetensors that transformers and PEFT load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file

from relex_merge.errors import RelexError
from relex_merge.publishing.converted import convert
from relex_merge.publishing.publish_series import publish_series
from tests.fake_hub import Hub
from tests.fake_hub.access import Token
from tests.support.models import write_model
from tests.support.sharded_runs import STEPS, ShardedRuns
from tests.support.terminal import Command

REPO = "tester/series"


def test_a_shard_series_becomes_revisions_in_the_dtype_of_choice(
    hub: Hub, hub_login: Token, relex: Command, sharded_runs: ShardedRuns
) -> None:
    run = sharded_runs.root / "fsdp2-3"
    command = ("publish-series", run, REPO, "--observe", "5-15", "--dtype", "bfloat16", "--quiet")
    done = relex(*command)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{hub.url}/{REPO}: 3 published, 0 complete before\n"
    for step, state in zip(STEPS, sharded_runs.series.states, strict=True):
        there = hub.files(REPO, f"step_{step}")
        assert set(there) == {
            *("config.json", "model.safetensors", "chat_template.jinja"),
            *("tokenizer.json", "tokenizer_config.json"),
        }
        made = load(there["model.safetensors"])
        assert set(made) == set(state)
        assert all(torch.equal(made[n], w.to(torch.bfloat16)) for n, w in state.items())
        assert json.loads(there["config.json"])["dtype"] == "bfloat16"
    again = relex(*command)
    assert again.out == f"{hub.url}/{REPO}: 0 published, 3 complete before\n"
    other = relex(*command[:-2], "float32", "--quiet")
    assert other.code == 1
    assert "with other content, so nothing was uploaded" in other.err


def test_a_trainers_folders_get_the_configuration_of_the_base(
    hub: Hub, hub_login: Token, relex: Command, sharded_runs: ShardedRuns
) -> None:
    run = sharded_runs.root / "trainer-2"
    refused = relex("publish-series", run, REPO, "--quiet")
    assert refused.code == 1
    assert "has no config.json, as the trainer left it; copy" in refused.err
    done = relex("publish-series", run, REPO, "--quiet", "--base", sharded_runs.series.base)
    assert (done.code, done.err) == (0, "")
    there = hub.files(REPO, "step_15")
    made, state = load(there["model.safetensors"]), sharded_runs.state()
    assert all(torch.equal(made[name], weight) for name, weight in state.items())
    assert {"config.json", "tokenizer.json"} <= set(there)


def test_an_adapter_in_shards_becomes_one_that_peft_loads(
    sharded_runs: ShardedRuns, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    convert(sharded_runs.checkpoint("lora"), tmp_path)
    saved = load_file(sharded_runs.adapters.folders[-1] / "adapter_model.safetensors")
    made = load_file(tmp_path / "adapter_model.safetensors")
    assert set(made) == set(saved)
    assert all(torch.equal(made[name], saved[name]) for name in saved)
    base = AutoModelForCausalLM.from_pretrained(sharded_runs.adapters.base)
    loaded = PeftModel.from_pretrained(base, tmp_path)
    assert len(loaded.peft_config["default"].target_modules) == 4


def test_the_tied_head_that_fsdp_saves_is_left_out_and_an_own_one_stays(
    sharded_runs: ShardedRuns, tmp_path: Path
) -> None:
    state = dict(sharded_runs.state())
    actor, out = tmp_path / "actor", tmp_path / "out"
    actor.mkdir()
    (actor / "config.json").write_text((sharded_runs.series.base / "config.json").read_text())
    for head, kept in (
        (state["model.embed_tokens.weight"].clone(), False),
        (torch.ones(64, 16), True),
    ):
        torch.save({**state, "lm_head.weight": head}, actor / "model_world_size_1_rank_0.pt")
        out.mkdir(exist_ok=True)
        convert(actor, out, dtype="float16")
        made = load_file(out / "model.safetensors")
        assert ("lm_head.weight" in made) == kept
        assert {tensor.dtype for tensor in made.values()} == {torch.float16}


def test_a_whole_checkpoint_is_published_in_another_dtype_too(
    hub: Hub, hub_login: Token, sharded_runs: ShardedRuns, tmp_path: Path
) -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(sharded_runs.series.base)
    for step in (5, 10):
        write_model(tmp_path / f"run/checkpoint-{step}", config, sharded_runs.state(step), shards=2)
    publish_series(tmp_path / "run", REPO, dtype="bfloat16", quiet=True)
    there = hub.files(REPO, "step_10")
    assert set(there) == {"config.json", "model.safetensors"}
    made = load(there["model.safetensors"])
    wanted = {n: w.to(torch.bfloat16) for n, w in sharded_runs.state(10).items()}
    assert all(torch.equal(made[name], weight) for name, weight in wanted.items())
    with pytest.raises(RelexError, match="dtype int8: choose one of float32, bfloat16, float16"):
        publish_series(tmp_path / "run", REPO, dtype="int8", quiet=True)


def test_a_watched_shard_series_waits_for_verls_note_of_its_last_step(
    sharded_runs: ShardedRuns, tmp_path: Path
) -> None:
    from relex_merge.checkpoints.find_local import find_local
    from relex_merge.publishing.readiness import Readiness

    run = sharded_runs.copy("fsdp2-2", tmp_path / "run")
    (run / "latest_checkpointed_iteration.txt").write_text("10")
    series, readiness = find_local(run), Readiness(0)
    waits = [readiness.why_not(checkpoint, series) for checkpoint in series.checkpoints]
    assert waits[:3] == [None, None, None]
    assert "verl has not written its step" in str(waits[3])
    (run / "global_step_10/actor/model_world_size_2_rank_1.pt").unlink()
    assert "rank 1 of 2 missing" in str(readiness.why_not(series.checkpoints[2], series))
