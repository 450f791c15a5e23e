"""A short real trajectory: a tiny Qwen2 trained by the demo's own GRPO, in seconds."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from relex_merge.demo.model import build_tokenizer
from relex_merge.demo.session import Session, open_session
from relex_merge.demo.settings import Pretraining, Rlvr, Settings
from relex_merge.demo.tasks import Split, Task, split_prompts
from relex_merge.demo.training import train
from tests.models import Series

STEPS = 10
PRETRAINING = Pretraining(
    hidden=32, layers=2, heads=2, mlp=64, steps=200, skill_steps=120, batch=128, lr=4e-3
)
RLVR = Rlvr(lr=1e-4, prompts=32, group=8)


@dataclass(frozen=True)
class FirstDigit:
    """``4071=`` → ``4``; the habit is the last digit. A tiny model learns it in a second."""

    summary: str = "the first of four digits; the base mostly says the last"
    alphabet: str = "0123456789="
    answer_length: int = 1

    def prompts(self, rng: random.Random) -> list[str]:
        return [f"{n:04d}=" for n in rng.sample(range(10_000), 6_000)]

    def solve(self, prompt: str) -> str:
        return prompt[0]

    def habit(self, prompt: str) -> str:
        return prompt[3]

    def competence(self, prompt: str) -> float:
        return 0.3

    def verify(self, prompt: str, answer: str) -> int:
        return int(answer == prompt[0])


TASK = FirstDigit()
"""The name that a module of tasks must have; this file can be put next to the demo's own tasks."""


def small_settings(seed: int = 0, **changes: object) -> Settings:
    """Settings of a training that takes seconds."""
    chosen = {"task": "first_digit", "seed": seed, "steps": 40, "observe": STEPS, **changes}
    return Settings(pretraining=PRETRAINING, rlvr=RLVR, **chosen)  # type: ignore[arg-type]


def small_split(settings: Settings, task: Task = TASK) -> Split:
    """The problems that the demo would use with these settings."""
    return split_prompts(task, settings.stream("problems"))


def train_small(out: Path, settings: Settings, last: int = STEPS, task: Task = TASK) -> Session:
    """Base and checkpoints 1 … last in ``out``, by the demo's own code."""
    session = open_session(out, settings, force=False)
    prompts = small_split(settings, task).train
    train(session, build_tokenizer(task), task, prompts, last, quiet=True)
    return session


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return state


def assert_same_bits(one: Path, other: Path) -> None:
    """The weights of two model folders are equal."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first), (one, other)


@pytest.fixture(scope="session")
def real_series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """Base and ten checkpoints, a step apart, of a real RLVR run. Not to be changed."""
    session = train_small(tmp_path_factory.mktemp("real") / "run", small_settings())
    folders = tuple(session.checkpoint(step) for step in range(1, STEPS + 1))
    return Series(
        base=session.base,
        checkpoints=folders,
        steps=tuple(float(step) for step in range(1, STEPS + 1)),
        base_state=load_file(session.base / "model.safetensors"),
        states=tuple(load_file(folder / "model.safetensors") for folder in folders),
    )
