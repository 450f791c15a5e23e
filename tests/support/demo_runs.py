"""A short real trajectory: a tiny Qwen2 trained by the demo's own GRPO, in seconds."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from relex_merge.demo import DemoResult, run_demo, tasks
from relex_merge.demo.model import build_tokenizer
from relex_merge.demo.session import Session, open_session
from relex_merge.demo.settings import Pretraining, Rlvr, Settings, make_settings
from relex_merge.demo.tasks import Split, Task, split_prompts
from relex_merge.demo.training import train
from tests.support.models import Series

STEPS, TOTAL = 10, 20
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


@pytest.fixture(scope="module", autouse=True)
def small_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A third task, added as one file; and every run of this module is small."""
    folder = tmp_path_factory.mktemp("tasks")
    shutil.copy(__file__, folder / "first_digit.py")

    def small(**choices: Any) -> Settings:
        rlvr = replace(RLVR, lr=choices["lr"] or RLVR.lr)
        return replace(make_settings(**choices), pretraining=PRETRAINING, rlvr=rlvr)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "__path__", [*tasks.__path__, str(folder)])
        patch.setattr("relex_merge.demo.run.make_settings", small)
        patch.setattr("relex_merge.demo.story.CURVE", (1, 2))
        patch.setattr("relex_merge.demo.story.OBSERVED_POINTS", 2)
        patch.setattr("relex_merge.demo.story.REAL_POINTS", 2)
        yield
    sys.modules.pop("relex_merge.demo.tasks.first_digit", None)


def run_small(out: Path, **choices: Any) -> DemoResult:
    """``run_demo`` on the third task, in seconds, without a word."""
    chosen = {"steps": TOTAL, "observe": STEPS, "quiet": True, "echo": lambda _: None, **choices}
    return run_demo(out, task="first_digit", **chosen)


@dataclass(frozen=True)
class Finished:
    """A demo with ``--full``, its words and its result."""

    out: Path
    text: str
    result: DemoResult


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
