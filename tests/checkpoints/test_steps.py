"""Promises about the step that a name says: one rule, whoever asks."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relex_merge.checkpoints.steps import compile_pattern, read_by, read_name, read_title, step_of
from relex_merge.errors import RelexError

SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b"

# names of branches, tags and folders as they are found, and the step of each
NAMES = {
    # RELEX, Tulu, Olmo, open-r1, TRL, transformers
    "step_50": 50,
    "step_2000": 2000,
    "step-000000050": 50,
    "main-step-000000050": 50,
    "v1.00-step-50": 50,
    "checkpoint-50": 50,
    "checkpoint-0": 0,
    "Qwen2.5-1.5B-checkpoint-50": 50,
    "Qwen2.5-1.5B-Open-R1-GRPO-step-000000120": 120,
    # verl, OpenRLHF, SkyRL, DeepSpeed, BLOOM
    "global_step_50": 50,
    "global_step_50/actor/huggingface": 50,
    "global_step_50/actor/lora_adapter": 50,
    "global_steps_50/actor/huggingface": 50,
    "global_step_50/policy": 50,
    "global_step50": 50,
    "global_step50_hf": 50,
    "globalstep50": 50,
    # Pythia, OLMo, LLM360, SmolLM, TinyLlama, Megatron, slime, Lightning, nanotron
    "step1000": 1000,
    "step1000-tokens4B": 1000,
    "stage1-step1000": 1000,
    "stage1-step1000-tokens5B": 1000,
    "stage2-ingredient1-step19000-tokens41B": 19000,
    "ckpt_050": 50,
    "ckpt-50": 50,
    "ckpt/50": 50,
    "chkpt50": 50,
    "iter_0000050": 50,
    "iter_0000050/hf": 50,
    "iteration-50": 50,
    "TinyLlama-1.1B-intermediate-step-50k-105b": 50_000,
    "epoch=2-step=100": 100,
    "epoch_2_step_100": 100,
    "000000050": 50,
    "50": 50,
    # a word for the step comes before every other number
    "step_100_seed_1": 100,
    "step50_lr3": 50,
    "step_100_of_500": 100,
    "checkpoint-50-v2": 50,
    "step_50-Qwen2.5-1.5B": 50,
    "step_50_2024-05-01": 50,
    "grpo-lr1e-6-step50-seed42": 50,
    "warmup100_step_5_lr1e-05_bs64": 5,
    "TrainingStep100-seed1": 100,
    "step_100/seed_1": 100,
    "2024-05-01/step-12": 12,
    "sweep_of_step_3/50": 50,
    "checkpoint-50/merged": 50,
    # numbers that are no steps
    SHA: None,
    SHA[:7]: None,
    "run-" + SHA[:9]: None,
    "main": None,
    "v1.5": None,
    "Qwen2.5-1.5B": None,
    "Llama-3.1-8B": None,
    "gemma-270m": None,
    "step-7B": None,
    "lr1e-6": None,
    "2024-05-01": None,
    "run_2024-05-01_12-34-56": None,
    "20240501-123456": None,
    "step_" + 30 * "9": None,
}
# without a word the last integer is taken, and told apart as a guess
GUESSED = {
    "release-7": 7,
    "v2": 2,
    "50-v2": 2,
    "seed-3": 3,
    "epoch-3": 3,
    "grpo-Qwen2.5-1.5B-120": 120,
    "run3-2024-05-01": 3,
    "500steps": 500,
}


@pytest.mark.parametrize(("name", "step"), {**NAMES, **GUESSED}.items())
def test_a_name_says_one_step_to_discovery_and_in_every_reference(
    name: str, step: int | None
) -> None:
    found = read_name(name)
    assert (found and found.step) == step
    assert found is None or found.guessed == (name in GUESSED)
    for reference in (
        f"org/run@{name}",
        f"org/run/{name}",
        f"org/run/{name}@main",
        f"org/run/{name}@{SHA}",
        f"/runs/grpo/{name}",
        f"./runs/grpo/{name}/",
        f"org/base-1.5B@step_9+org/adapter@{name}",
        f"/models/base-step-9+/runs/{name}",
    ):
        assert step_of(reference) == step, reference


@pytest.mark.parametrize(
    ("reference", "step"),
    [
        # of a Hub repo without a revision only a word counts
        ("Qwen/Qwen2.5-Math-1.5B", None),
        ("Qwen/Qwen3-8B-Base", None),
        ("org/model-v2", None),
        ("org/my-grpo-checkpoint-500", 500),
        ("org/qwen-iter-40", 40),
        # a revision that names no step is not helped by the repo
        ("org/run-step-7@main", None),
        ("org/run@" + SHA, None),
        ("org/run@1000000", 1000000),
        # a folder of a Hub repo that says its step comes before the revision
        ("org/run/checkpoint-50@v2", 50),
        ("org/run/runs/a/000000050@main", 50),
        ("org/run/seed-3@step_50", 50),
        ("org/run/seed-3@main", 3),
        ("org/run-7/actor/huggingface@step_50", 50),
        ("org/run-7/actor/huggingface@main", None),
        ("org/run-step-7/final@" + SHA, None),
        # what lies above a folder on this disk has numbers of its own
        ("/home/me/step2_rl/runs/last", None),
        ("/scratch/12345/final", None),
        ("/home/me/step2_rl/runs/run-50", 50),
        ("/runs/global_step_50/actor", 50),
        ("/runs/2024-05-01/step-12/hf_model", 12),
    ],
)
def test_which_part_of_a_reference_counts(reference: str, step: int | None) -> None:
    assert step_of(reference) == step


@given(
    st.integers(0, 10**7),
    st.sampled_from(
        [
            "org/run@step_{}",
            "org/run@{}",
            "org/run@v2.1-step{}",
            "/runs/checkpoint-{}",
            "/runs/global_step_{}/actor/huggingface",
            "org/Qwen2.5-1.5B-checkpoint-{}",
        ],
    ),
    st.booleans(),
)
def test_any_number_in_the_usual_places(step: int, pattern: str, padded: bool) -> None:
    assert step_of(pattern.format(f"{step:09d}" if padded else step)) == step


@given(st.text(max_size=60))
def test_any_text_is_read(text: str) -> None:
    for found in (read_name(text), read_title(text)):
        assert found is None or 0 <= found.step < 10**21
    step_of(text)


def test_a_relative_folder_that_exists_is_a_folder_and_no_repo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert step_of("runs/model-50") is None
    (tmp_path / "runs/model-50").mkdir(parents=True)
    assert step_of("runs/model-50") == 50


@pytest.mark.parametrize(
    ("title", "step"),
    [
        ("Training in progress, step 500", 500),
        ("Upload step 3/10", 3),
        ("Step: 40 of seed 2", 40),
        ("Upload 12 files", None),
        ("50", None),
    ],
)
def test_of_a_commit_only_a_word_says_the_step(title: str, step: int | None) -> None:
    found = read_title(title)
    assert (found and found.step) == step


def test_what_names_of_one_series_have_in_common() -> None:
    found = [read_name(f"stage1-step{step}-tokens{4 * step}B") for step in (5, 10)]
    assert {each and each.family for each in found} == {"stage#-step{step}-tokens#B"}
    nested = read_name("run/global_step_50/actor/huggingface")
    assert nested is not None
    assert nested.shape == "run/global_step_{step}/actor/huggingface"


def test_a_pattern_decides_and_must_have_a_group_of_digits() -> None:
    found = read_by(compile_pattern(r"v(\d+)-step"), "v3-step-50")
    assert found is not None
    assert found.step == 3
    assert read_by(compile_pattern(r"epoch-(\d+)"), "v3-step-50") is None
    with pytest.raises(RelexError, match="has no group"):
        compile_pattern(r"step_\d+")
    with pytest.raises(RelexError, match="no regular expression"):
        compile_pattern(r"step_(\d+")
    with pytest.raises(RelexError, match=r"'v3' in v3-step-50, which is not a step number"):
        read_by(compile_pattern(r"^(\w+)-"), "v3-step-50")
    with pytest.raises(RelexError, match="which is not a step number"):
        read_by(compile_pattern(r"(\d+)"), 5000 * "9")
