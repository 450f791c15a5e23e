"""Promises about series on this disk, as trainers leave them."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from relex_merge.checkpoints.find import find
from relex_merge.checkpoints.find_local import find_local
from relex_merge.checkpoints.series import NothingFoundError
from relex_merge.checkpoints.steps import step_of
from relex_merge.errors import RelexError
from tests.support.models import make_config, make_state, write_model
from tests.support.trainer_run import PLANNED, SAVED, train

Put = Callable[..., Path]
_MODELS: dict[int, tuple[Any, Any]] = {}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return train(tmp_path_factory.mktemp("trainer"))


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write a tiny model below ``tmp_path/run``; with ``hidden`` one of another size."""

    def write(name: str, hidden: int = 16, **how: Any) -> Path:
        if hidden not in _MODELS:
            config = make_config(hidden_size=hidden)
            _MODELS[hidden] = config, make_state(config)
        return write_model(tmp_path / "run" / name, *_MODELS[hidden], **how)

    return write


def adapter(folder: Path, base: str = "org/base", rank: int = 8) -> None:
    """An adapter's files; its weights are a safetensors file of something."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"peft_type": "LORA", "base_model_name_or_path": base, "r": rank}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({"lora_A": np.zeros((rank, 4), np.float32)}, folder / "adapter_model.safetensors")


def shards(folder: Path) -> None:
    """What is left when verl is stopped: shards cut off, a configuration without weights."""
    (folder / "huggingface").mkdir(parents=True)
    for rank in range(2):
        (folder / f"model_world_size_2_rank_{rank}.pt").write_bytes(b"x")
    (folder / "huggingface/config.json").write_text("{}")


# what the real Trainer writes


def test_a_folder_of_the_transformers_trainer(trained: tuple[Path, Path]) -> None:
    base, out = trained
    found = find(str(out))
    assert found.layout == "transformers"
    assert found.steps == list(SAVED)
    assert [c.reference for c in found.checkpoints] == [str(out / f"checkpoint-{s}") for s in SAVED]
    assert found.last_step == PLANNED  # from trainer_state.json: the run was stopped before
    for checkpoint in found.checkpoints:
        weights = Path(checkpoint.reference, "model.safetensors")
        assert checkpoint.size == weights.stat().st_size
        assert (checkpoint.dtype, checkpoint.kind, checkpoint.sha) == ("F32", "model", None)
        assert checkpoint.date is not None
    assert found.notes == ()
    if found.base:  # as far as this transformers writes it down
        assert found.base.reference == str(base)


# the other layouts


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("global_step_{}/actor/huggingface", "verl"),
        ("checkpoints/project/run/global_step_{}/actor/huggingface", "verl"),
        ("checkpoints_{}_x/global_step{}_hf", "openrlhf"),
        ("global_step{}_hf", "openrlhf"),
        ("data/Qwen2.5-1.5B-Open-R1-GRPO/checkpoint-{}", "transformers"),
        ("step_{}", "plain"),
        ("{}", "plain"),
        ("Qwen2.5-1.5B-step-{:09d}", "plain"),
    ],
)
def test_every_layout_is_found_with_its_steps_as_numbers(
    put: Put, tmp_path: Path, name: str, layout: str
) -> None:
    for step in (5, 10, 100):
        put(name.replace("checkpoints_{}_x", "checkpoints").format(step))
    found = find_local(tmp_path / "run")
    assert (found.layout, found.steps) == (layout, [5, 10, 100])
    assert [step_of(c.reference) for c in found.checkpoints] == [5, 10, 100]
    assert found.base is None
    assert found.last_step == 100


def test_shards_with_an_index_and_pickled_weights(put: Put, tmp_path: Path) -> None:
    put("step_1", shards=2)
    folder = put("step_2")
    (folder / "model.safetensors").unlink()
    torch.save(_MODELS[16][1], folder / "pytorch_model.bin")
    (folder / "training_args.bin").write_bytes(b"x")
    found = find_local(tmp_path / "run")
    assert found.steps == [1, 2]
    sizes = [p.stat().st_size for p in (tmp_path / "run/step_1").glob("*.safetensors")]
    assert found.checkpoints[0].size == sum(sizes)
    assert found.checkpoints[1].size == (folder / "pytorch_model.bin").stat().st_size


def test_what_lies_beside_the_policy_is_no_part_of_the_series(put: Put, tmp_path: Path) -> None:
    for step in (10, 20):
        put(f"global_step_{step}/critic/huggingface", hidden=32)
        put(f"global_step_{step}/actor/huggingface")
        put(f"global_step_{step}/ref")
    found = find_local(tmp_path / "run")
    assert all("/actor/" in c.reference for c in found.checkpoints)
    assert found.notes == ()
    critics = find_local(tmp_path / "run", r"global_step_(\d+)/critic")
    assert all("/critic/" in c.reference for c in critics.checkpoints)


def test_symbolic_links_are_followed_and_keep_their_names(put: Put, tmp_path: Path) -> None:
    for step in (10, 20):
        put(f"checkpoint-{step}")
    (tmp_path / "run/best").symlink_to("checkpoint-20")
    (tmp_path / "run/loop").symlink_to(".")
    links = tmp_path / "links"
    links.mkdir()
    (links / "step_1").symlink_to(tmp_path / "run/checkpoint-10")
    (links / "step_2").symlink_to(tmp_path / "run/checkpoint-20")
    found = find_local(tmp_path / "run")
    assert (found.steps, found.notes) == ([10, 20], ())
    linked = find_local(links)
    assert [c.reference for c in linked.checkpoints] == [str(links / f"step_{i}") for i in (1, 2)]


# choices


def test_of_several_layouts_the_longest_is_taken_and_the_pattern_decides(
    put: Put, tmp_path: Path
) -> None:
    for step in (10, 20, 30):
        put(f"checkpoint-{step}")
    for step in (1, 2):
        put(f"merged/step_{step}")
    found = find_local(tmp_path / "run")
    assert (found.layout, found.steps) == ("transformers", [10, 20, 30])
    assert "which has the most checkpoints" in found.notes[0]
    assert "plain merged/step_{step} (2 models, steps 1 to 2)" in found.notes[0]
    assert "--pattern" in found.notes[0]
    other = find_local(tmp_path / "run", r"merged/step_(\d+)")
    assert (other.layout, other.steps, other.notes) == ("plain", [1, 2], ())


def test_two_runs_of_the_same_steps_are_two_series(put: Put, tmp_path: Path) -> None:
    for run, count in ((1, 3), (2, 4)):
        for step in range(1, count + 1):
            put(f"seed{run}/step-{step}")
            put(f"v{run}-step-{step}")
    for step in (10, 20):
        put(f"checkpoint-{step}")
    found = find_local(tmp_path / "run")
    assert len({Path(c.reference).parent for c in found.checkpoints}) == 1
    assert found.steps == [1, 2, 3, 4]  # the longest, whatever layout would come first
    assert not any("twice" in note for note in found.notes)
    other = find_local(tmp_path / "run", r"seed1/step-(\d+)")
    assert [c.reference for c in other.checkpoints] == [
        str(tmp_path / f"run/seed1/step-{step}") for step in (1, 2, 3)
    ]


def test_adapters_and_whole_models_are_told_apart_and_explained(put: Put, tmp_path: Path) -> None:
    for step in (10, 20):
        adapter(tmp_path / f"run/checkpoint-{step}")
    found = find_local(tmp_path / "run")
    assert {c.kind for c in found.checkpoints} == {"adapter"}
    assert found.base is not None
    assert found.base.reference == "org/base"
    assert found.base.found_in == "base_model_name_or_path in checkpoint-10/adapter_config.json"
    for step in (10, 20, 30):
        put(f"merged/checkpoint-{step}")
    mixed = find_local(tmp_path / "run")
    assert {c.kind for c in mixed.checkpoints} == {"model"}
    assert any("adapters and whole models" in note for note in mixed.notes)


def test_gaps_and_duplicates_are_pointed_out(put: Put, tmp_path: Path) -> None:
    for step in (10, 20, 30, 50, 60):
        put(f"a/step_{step}")
    put("b/step-20")
    assert "gaps: step 40 missing, every 10 elsewhere" in find_local(tmp_path / "run").notes
    found = find_local(tmp_path / "run", r"step[_-](\d+)")
    assert found.steps == [10, 20, 30, 50, 60]
    twice = next(note for note in found.notes if "twice" in note)
    assert "step 20 is there twice" in twice
    assert "run/a/step_20 was taken" in twice


def test_the_base_is_proposed_from_the_card_or_the_configuration(put: Put, tmp_path: Path) -> None:
    folders = [put(f"checkpoint-{step}") for step in (1, 2)]
    config = json.loads((folders[0] / "config.json").read_text())

    def proposed(name: object) -> tuple[str, str | None] | None:
        (folders[0] / "config.json").write_text(json.dumps({**config, "_name_or_path": name}))
        base = find_local(tmp_path / "run").base
        return (base.reference, base.found_in) if base else None

    where = "_name_or_path in checkpoint-1/config.json"
    assert proposed("Qwen/Qwen3-4B-Base") == ("Qwen/Qwen3-4B-Base", where)
    assert proposed(str(put("base"))) == (str(tmp_path / "run/base"), where)
    assert proposed(str(folders[1])) is None  # it was resumed from there
    assert proposed("/nowhere/model") is None
    assert any("/nowhere/model" in note for note in find_local(tmp_path / "run").notes)
    (tmp_path / "run/README.md").write_text("---\nbase_model: org/start\n---\n# run\n")
    assert proposed("org/other") == ("org/start", "base_model in README.md")


def test_a_checkpoint_of_step_0_is_the_base_where_nothing_else_is(put: Put, tmp_path: Path) -> None:
    for step in (0, 1, 2):
        put(f"step_{step}")
    base = find_local(tmp_path / "run").base
    assert base is not None
    assert base.reference == str(tmp_path / "run/step_0")


# bad input


def test_nothing_found_says_what_was_looked_for_and_what_is_there(put: Put, tmp_path: Path) -> None:
    with pytest.raises(NothingFoundError, match="is not a folder"):
        find(str(tmp_path / "nowhere"))
    put("final")
    (tmp_path / "run/logs").mkdir()
    with pytest.raises(NothingFoundError) as caught:
        find_local(tmp_path / "run")
    message = str(caught.value)
    assert "looked for checkpoint-N, global_step_N/actor, global_stepN_hf" in message
    assert "models without a step in their names: final" in message
    with pytest.raises(NothingFoundError, match="holds one model and no series below it"):
        find_local(tmp_path / "run/final")
    with pytest.raises(
        NothingFoundError, match=r"looked for folders that 'epoch_\(\\\\d\+\)' find"
    ):
        find_local(tmp_path / "run", r"epoch_(\d+)")
    with pytest.raises(NothingFoundError, match="there is: nothing"):
        find_local(tmp_path / "run/logs")


def test_shards_that_are_cut_off_are_left_out_and_named(put: Put, tmp_path: Path) -> None:
    for step in (5, 10):
        shards(tmp_path / f"run/global_step_{step}/actor")
    with pytest.raises(NothingFoundError) as caught:
        find_local(tmp_path / "run")
    said = "global_step_5/actor: model_world_size_2_rank_0.pt is cut off"
    assert said in str(caught.value)
    assert "huggingface" not in str(caught.value)  # it waits for what is in the folder above
    put("global_step_5/actor/huggingface")
    put("global_step_15/actor/huggingface")
    found = find_local(tmp_path / "run")
    assert found.steps == [5, 15]
    assert len(found.notes) == 1
    assert found.notes[0].startswith("global_step_10/actor was left out: model_world_size_2_rank_0")


def test_a_checkpoint_without_whole_weights_is_left_out_and_named(put: Put, tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        put(f"step_{step}", shards=1 if step != 3 else 2)
    (tmp_path / "run/step_2/model.safetensors").unlink()
    next((tmp_path / "run/step_3").glob("model-00001*")).unlink()
    (tmp_path / "run/step_5").mkdir()
    shutil.copy(tmp_path / "run/step_1/config.json", tmp_path / "run/step_5")
    half = (tmp_path / "run/step_1/model.safetensors").read_bytes()[:-100]
    (tmp_path / "run/step_5/model.safetensors").write_bytes(half)
    found = find_local(tmp_path / "run")
    assert found.steps == [1, 4]
    notes = "\n".join(found.notes)
    assert "step_2 was left out: it has no weights (it holds config.json)" in notes
    assert (
        "step_3 was left out: no model-00001-of-00002.safetensors, which its index names" in notes
    )
    assert "step_5 was left out: model.safetensors is not whole" in notes
    for step in (1, 4):
        (tmp_path / f"run/step_{step}/model.safetensors").unlink()
    with pytest.raises(
        NothingFoundError,
        match="no checkpoint with whole weights; step_1, step_2, step_4: it has",
    ):
        find_local(tmp_path / "run")


def test_models_of_two_sizes_in_one_series_are_refused(put: Put, tmp_path: Path) -> None:
    put("checkpoint-1")
    put("checkpoint-2", hidden=32)
    with pytest.raises(RelexError) as caught:
        find_local(tmp_path / "run")
    message = str(caught.value)
    assert "checkpoints of different models" in message
    assert "checkpoint-1 is Qwen2ForCausalLM hidden_size 16" in message
    assert "checkpoint-2 is Qwen2ForCausalLM hidden_size 32" in message
    assert "--pattern" in message
    for step in (11, 12):
        adapter(tmp_path / f"adapters/checkpoint-{step}", base=f"org/base-{step}")
    with pytest.raises(RelexError, match="adapter of base-11"):
        find_local(tmp_path / "adapters")


def test_a_folder_that_mergekit_could_not_name_is_refused(tmp_path: Path) -> None:
    config = make_config()
    for step in (1, 2):
        write_model(tmp_path / f"a+b/step_{step}", config, make_state(config))
    with pytest.raises(RelexError, match=r"has '\+' in its path.*symbolic link"):
        find_local(tmp_path / "a+b")
    (tmp_path / "ab").symlink_to(tmp_path / "a+b")
    assert find_local(tmp_path / "ab").steps == [1, 2]


def test_a_checkpoint_that_is_renamed_meanwhile_is_left_out(put: Put, tmp_path: Path) -> None:
    """The Trainer writes ``tmp-checkpoint-N`` and renames it; a watcher looks all the time."""
    put("checkpoint-5")
    put("tmp-checkpoint-10")
    temporary = tmp_path / "run/tmp-checkpoint-10"
    final = temporary.with_name("checkpoint-10")
    done = threading.Event()

    def rename() -> None:
        while not done.is_set():
            temporary.rename(final)
            final.rename(temporary)

    writer = threading.Thread(target=rename)
    writer.start()
    try:
        for _ in range(40):
            assert 5 in find_local(tmp_path / "run").steps
    finally:
        done.set()
        writer.join()
