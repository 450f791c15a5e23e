"""Answers from a model, many at once: prompts are read once, every group shares their cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relex_merge.demo.model import EOS, PAD

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Rollouts:
    """``group`` answers to each of P prompts, those to one prompt in neighbouring rows.

    Attributes:
        tokens: int64 (P·group, length), ``PAD`` after the end of an answer.
        logprob: float32 (P·group,), of the whole answer under the model; keeps the gradient.
    """

    tokens: torch.Tensor
    logprob: torch.Tensor


def answer(
    model: Any,
    questions: torch.Tensor,
    *,
    length: int,
    group: int = 1,
    rng: torch.Generator | None = None,
) -> Rollouts:
    """Answer questions.

    Args:
        model: the model.
        questions: int64 (P, prompt length).
        length: most tokens of an answer.
        group: answers to each question.
        rng: what they are sampled with, at temperature 1; greedy without.
    """
    import torch

    output = model(questions, use_cache=True, logits_to_keep=1)
    cache = output.past_key_values
    cache.batch_repeat_interleave(group)
    logits = output.logits[:, -1].repeat_interleave(group, 0)
    alive = torch.ones(len(logits), dtype=torch.bool)
    logprob = torch.zeros(len(logits))
    tokens: list[torch.Tensor] = []
    for position in range(length):
        if position > 0:
            logits = model(tokens[-1][:, None], past_key_values=cache).logits[:, -1]
        logprobs = logits.log_softmax(-1)
        token = _choose(logprobs.detach(), rng).where(alive, torch.tensor(PAD))
        logprob = logprob + logprobs.gather(1, token[:, None])[:, 0] * alive
        alive = alive & (token != EOS)
        tokens.append(token)
    return Rollouts(torch.stack(tokens, 1), logprob)


def _choose(logprobs: torch.Tensor, rng: torch.Generator | None) -> torch.Tensor:
    import torch

    if rng is None:
        return logprobs.argmax(-1)
    return torch.multinomial(logprobs.exp(), 1, generator=rng)[:, 0]
