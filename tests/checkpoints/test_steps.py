"""Promises about which step of the run a reference names."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relex_merge.checkpoints.steps import step_of

SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b"


@pytest.mark.parametrize(
    ("reference", "step"),
    [
        # the revision's last integer
        ("relex-rlvr/RLVR-Qwen2.5-Math-1.5B@step_75", 75),
        ("allenai/Olmo-3-7B-RL-Zero-Math@step_2000", 2000),
        ("org/run@main-step-000000050", 50),
        ("org/run@v1.00-step-50", 50),
        ("org/run@checkpoint-0", 0),
        ("org/run@1000000", 1000000),
        ("org/run@1500", 1500),
        # a revision without a number is no step, whatever the repo is called
        ("org/run-step-7@main", None),
        ("org/run@" + SHA, None),
        ("org/run@" + SHA[:7], None),
        # a Hub repo without a revision: only an outspoken step
        ("Qwen/Qwen2.5-Math-1.5B", None),
        ("Qwen/Qwen3-8B-Base", None),
        ("org/model-v2", None),
        ("org/my-grpo-checkpoint-500", 500),
        ("org/qwen-iter-40", 40),
        # a folder of a Hub repo: its name before the revision's, where it is a step
        ("org/run/checkpoint-50", 50),
        ("org/run/checkpoint-50/", 50),
        ("org/run/checkpoint-50@main", 50),
        ("org/run/checkpoint-50@v2", 50),
        ("org/run/checkpoint-50@" + SHA, 50),
        ("org/run/global_step_50/actor/huggingface@main", 50),
        ("org/run/runs/a/000000050@main", 50),
        ("org/run/seed-3@step_50", 50),
        ("org/run/seed-3@main", 3),
        ("org/run-7/actor/huggingface@step_50", 50),
        ("org/run-7/actor/huggingface@main", None),
        ("org/run-step-7/final@" + SHA, None),
        # folders
        ("/runs/grpo/checkpoint-50", 50),
        ("/runs/grpo/checkpoint-50/", 50),
        ("./runs/grpo/global_step_50/actor/huggingface", 50),
        ("/runs/global_step_50/actor", 50),
        ("/runs/2024-05-01/step-12/hf_model", 12),
        ("/runs/Qwen2.5-1.5B-step-120", 120),
        ("/runs/step_120-Qwen2.5-1.5B", 120),
        ("/runs/Qwen2.5-1.5B", None),
        ("/runs/gemma-270m", None),
        ("/runs/000000050", 50),
        ("/runs/final", None),
        # of an adapter on a base, the adapter's
        ("org/base-1.5B@step_9+org/adapter@step_30", 30),
        ("/models/base-step-9+/runs/checkpoint-30", 30),
    ],
)
def test_the_step_is_read_as_documented(reference: str, step: int | None) -> None:
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


def test_a_relative_folder_that_exists_is_a_folder_and_no_repo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert step_of("runs/model-50") is None
    (tmp_path / "runs/model-50").mkdir(parents=True)
    assert step_of("runs/model-50") == 50
