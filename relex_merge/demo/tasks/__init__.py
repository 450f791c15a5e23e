"""What the demo's models learn: every module of this package is one task.

To add a task, put one file next to ``addition.py`` that sets ``TASK`` to an object with the
attributes of :class:`Task`; the module's name is what ``--task`` accepts. The base model learns
from demonstrations that show the right answer only part of the time and a *habit*, a plausible
wrong behaviour, the rest of the time. It can answer but mostly does not, as a pre-trained model,
and reinforcement learning has something to bring out.
"""

from __future__ import annotations

import importlib
import pkgutil
import random
from dataclasses import dataclass
from typing import Protocol

from relex_merge.errors import RelexError

HELD_OUT = 2048  # problems kept for the accuracies; none of them is ever trained on


class Task(Protocol):
    """Problems in plain characters with an answer that a program can check."""

    @property
    def summary(self) -> str:
        """One line for people: what is asked, and what the base does wrong."""

    @property
    def alphabet(self) -> str:
        """Every character that a prompt or an answer may hold; each becomes one token."""

    @property
    def answer_length(self) -> int:
        """Characters of the longest answer."""

    def prompts(self, rng: random.Random) -> list[str]:
        """Draw distinct problems, all of one length, many more than ``HELD_OUT``."""

    def solve(self, prompt: str) -> str:
        """Return a right answer."""

    def habit(self, prompt: str) -> str:
        """Return the answer that the base model has learnt to prefer."""

    def competence(self, prompt: str) -> float:
        """Return the probability that a demonstration of this problem shows the right answer."""

    def verify(self, prompt: str, answer: str) -> int:
        """Return the reward: 1 if ``answer`` is right, 0 if it is anything else."""


@dataclass(frozen=True)
class Split:
    """Prompts to train on and prompts to measure on, disjoint."""

    train: list[str]
    held_out: list[str]


def task_names() -> list[str]:
    """List the tasks, the modules of this package, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_task(name: str) -> Task:
    """Return the task of that name.

    Raises:
        RelexError: there is no such task; the message lists those that exist.
    """
    if name not in task_names():
        raise RelexError(f"unknown task {name!r}: choose one of {', '.join(task_names())}")
    task: Task = importlib.import_module(f"{__name__}.{name}").TASK
    return task


def split_prompts(task: Task, seed: int) -> Split:
    """Shuffle the task's problems by ``seed``; the first ``HELD_OUT`` are never trained on."""
    prompts = task.prompts(random.Random(f"problems {seed}"))
    return Split(train=prompts[HELD_OUT:], held_out=prompts[:HELD_OUT])
