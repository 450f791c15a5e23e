"""Accuracy on problems that no model was trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relex_merge.demo.model import decode, encode
from relex_merge.demo.sampling import answer

if TYPE_CHECKING:
    import torch

    from relex_merge.demo.tasks import Task


@dataclass(frozen=True)
class Accuracy:
    """Shares of right answers to ``problems`` problems, one answer to each."""

    greedy: float
    sampled: float
    problems: int

    @property
    def greedy_error(self) -> float:
        """The standard error of ``greedy``."""
        return standard_error(self.greedy, self.problems)

    @property
    def sampled_error(self) -> float:
        """The standard error of ``sampled``."""
        return standard_error(self.sampled, self.problems)


def standard_error(share: float, n: int) -> float:
    """Return √(p(1 − p)/n), of a share p of n independent trials."""
    return math.sqrt(share * (1 - share) / n)


def evaluate(model: Any, tokenizer: Any, task: Task, prompts: list[str], seed: int) -> Accuracy:
    """Measure a model, greedily and sampled at temperature 1.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        task: what the answers are verified by.
        prompts: the problems, of one length.
        seed: all that the random numbers depend on.
    """
    import torch

    def share(rng: torch.Generator | None) -> float:
        right = right_answers(model, tokenizer, task, prompts, rng)
        return sum(right) / len(right)

    return Accuracy(share(None), share(torch.Generator().manual_seed(seed)), len(prompts))


def right_answers(
    model: Any,
    tokenizer: Any,
    task: Task,
    prompts: list[str],
    rng: torch.Generator | None = None,
) -> list[int]:
    """Answer every problem once, and return 1 for each right answer and 0 for the others.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        task: what the answers are verified by.
        prompts: the problems, of one length.
        rng: what answers are sampled with, at temperature 1; greedy without.
    """
    import torch

    with torch.inference_mode():
        questions = encode(tokenizer, prompts)
        rollouts = answer(model, questions, length=task.answer_length + 1, rng=rng)
    answers = decode(tokenizer, rollouts.tokens)
    return [task.verify(p, a) for p, a in zip(prompts, answers, strict=True)]
