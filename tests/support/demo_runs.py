"""A short real trajectory: a tiny Qwen2 trained by the demo's own GRPO, in seconds.

Training the base model takes longer than all else. The fixtures ``finished`` and ``real_series``
of ``tests/demo/conftest.py`` train it once; other runs ``begin`` with a copy of that, or with a
base of ``SHORT`` that has learnt nothing, unless its training is what they are about.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from relex_merge.demo import DemoResult, run_demo
from relex_merge.demo.model import build_tokenizer
from relex_merge.demo.session import Session, open_session
from relex_merge.demo.settings import Pretraining, Rlvr, Settings
from relex_merge.demo.tasks import Split, Task, split_prompts
from relex_merge.demo.training import train
from tests.support.first_digit import TASK

STEPS, TOTAL = 10, 20
PRETRAINING = Pretraining(
    hidden=32, layers=2, heads=2, mlp=64, steps=200, skill_steps=120, batch=128, lr=4e-3
)
SHORT = replace(PRETRAINING, steps=4, skill_steps=2)
RLVR = Rlvr(lr=1e-4, prompts=32, group=8)


def run_small(out: Path, **choices: Any) -> DemoResult:
    """``run_demo`` on the third task, in seconds, without a word."""
    chosen = {
        "steps": TOTAL,
        "observe": STEPS,
        "quick": True,
        "quiet": True,
        "echo": lambda _: None,
        **choices,
    }
    return run_demo(out, task="first_digit", **chosen)


@dataclass(frozen=True)
class Finished:
    """A demo with its real end, its words and its result."""

    out: Path
    text: str
    result: DemoResult


def small_settings(seed: int = 0, **changes: Any) -> Settings:
    """Settings of a training that takes seconds."""
    chosen = {"task": "first_digit", "seed": seed, "steps": 40, "observe": STEPS, **changes}
    return Settings(**{"pretraining": PRETRAINING, "rlvr": RLVR, **chosen})


def small_split(settings: Settings, task: Task = TASK) -> Split:
    """The problems that the demo would use with these settings."""
    return split_prompts(task, settings.stream("problems"))


def begin(out: Path, settings: Settings, base: Path) -> Session:
    """What a demo of these settings leaves when it is interrupted after the training of ``base``.

    Whatever trains in ``out`` goes on from there.
    """
    session = open_session(out, settings, force=False)
    shutil.copytree(base, session.base)
    session.save_state(0)
    return session


def train_small(out: Path, settings: Settings, last: int = STEPS) -> Session:
    """Base and checkpoints 1 … last in ``out``, by the demo's own code."""
    session = open_session(out, settings, force=False)
    prompts = small_split(settings).train
    train(session, build_tokenizer(TASK), TASK, prompts, last, quiet=True)
    return session


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return state


def assert_same_bits(one: Path, other: Path) -> None:
    """The weights of two model folders are equal."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first), (one, other)
