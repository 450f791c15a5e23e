"""Promises about other trainers' layouts: read where it can be, else named with the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from relex_merge.checkpoints.find_local import find_local
from relex_merge.checkpoints.series import NothingFoundError
from tests.support.models import make_config, make_state, write_model


def model(folder: Path) -> Path:
    config = make_config()
    return write_model(folder, config, make_state(config))


def test_verls_megatron_models_count_when_their_manifest_is_written(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        actor = tmp_path / f"global_step_{step}/actor"
        model(actor / "model/huggingface")
        (actor / "optimizer/dist_ckpt").mkdir(parents=True)
        if step < 15:
            (actor / "ckpt_contents.json").write_text("{}")
    found = find_local(tmp_path)
    assert (found.layout, found.steps) == ("verl", [5, 10])
    said = "global_step_15/actor/model/huggingface was left out: verl has not written ckpt_contents"
    assert found.notes[0].startswith(said)


def test_zero_states_are_named_with_the_command_that_converts_them(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-5/global_step5"
    folder.mkdir(parents=True)
    (folder.parent / "zero_to_fp32.py").touch()
    for name in ("model", "optim"):
        (folder / f"zero_pp_rank_0_mp_rank_00_{name}_states.pt").touch()
    with pytest.raises(NothingFoundError) as caught:
        find_local(tmp_path)
    run = tmp_path / "checkpoint-5"
    command = f"python {run}/zero_to_fp32.py {run} {run}/global_step5_hf --tag global_step5"
    assert command in str(caught.value)
    (folder / "zero_pp_rank_0_mp_rank_00_optim_states.pt").unlink()
    with pytest.raises(NothingFoundError, match="without the optimizer's states"):
        find_local(tmp_path)


def test_megatrons_own_shards_are_named_with_verls_command(tmp_path: Path) -> None:
    actor = tmp_path / "global_step_5/actor"
    (actor / "dist_ckpt").mkdir(parents=True)
    (actor / "ckpt_contents.json").write_text("{}")
    with pytest.raises(NothingFoundError, match=r"model_merger merge --backend megatron --local"):
        find_local(tmp_path)


def test_steps_that_openrlhf_has_deleted_are_told_of(tmp_path: Path) -> None:
    for step in (40, 50, 60):
        model(tmp_path / f"global_step{step}_hf")
    found = find_local(tmp_path)
    assert found.steps == [40, 50, 60]
    assert "3 earlier steps (10 to 30) are not there: OpenRLHF keeps as many" in found.notes[0]


def test_of_shards_and_a_narrower_copy_the_shards_are_taken(tmp_path: Path) -> None:
    import torch

    from tests.support.models import cast

    config = make_config()
    state = make_state(config)
    for step in (5, 10):
        actor = tmp_path / f"global_step_{step}/actor"
        write_model(actor / "huggingface", config, cast(state, torch.bfloat16))
        torch.save(state, actor / "model_world_size_1_rank_0.pt")
    found = find_local(tmp_path)
    assert (found.layout, {c.dtype for c in found.checkpoints}) == ("fsdp", {"F32"})
    assert "which is stored in float32; also there: verl" in found.notes[0]
    for step in (5, 10):
        write_model(tmp_path / f"global_step_{step}/actor/huggingface", config, state)
    assert find_local(tmp_path).layout == "verl"
