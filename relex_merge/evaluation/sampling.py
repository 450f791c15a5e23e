"""Responses sampled from a model that sits in memory.

Sampling is by inversion: token t of sample j of prompt i is the first v with

    Σ_{w ≤ v} softmax(logits / temperature)_w > u_{ijt}

where the u_{ijt} are uniform numbers from numpy's PCG64, seeded by (seed, i, j). So a response
depends neither on the batch it was made in nor on the number of samples, and the samples of two
models share their random numbers, which makes what is compared between them less noisy. The whole
vocabulary is sampled from: top-p, top-k and penalties in a model's generation_config.json are not
applied. Its end tokens are; where a response must not be empty, none of them can come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from relex_merge.errors import RelexError
from relex_merge.evaluation.batches import in_batches
from relex_merge.evaluation.tokens import Item, check_length, longest

if TYPE_CHECKING:
    from transformers import GenerationConfig


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled.

    temperature: 0 decodes greedily. samples: responses to each prompt. max_new_tokens: the most
    tokens of a response, its end token included. seed: any integer not below 0.
    batch_size: sequences at a time. never_empty: whether the first token is never an end token.
    """

    temperature: float = 1.0
    samples: int = 1
    max_new_tokens: int = 64
    seed: int = 0
    batch_size: int = 32
    never_empty: bool = False

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise RelexError(f"temperature is {self.temperature}; 0 is greedy, 1 the model's own")
        for name in ("samples", "max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise RelexError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.seed < 0:
            raise RelexError(f"seed is {self.seed}; it must not be negative")


def sample_responses(
    model: Any, tokenizer: Any, prompts: Sequence[Item], settings: Sampling, *, name: str
) -> list[Item]:
    """Answer every prompt ``settings.samples`` times.

    Args:
        model: a transformers causal language model in evaluation mode, on any device.
        tokenizer: of the series; gives the end token where the model names none.
        prompts: items; their responses are ignored.
        settings: temperature, number and length of the responses, seed, batch size.
        name: what messages call the model.

    Returns:
        The items with responses, those to one prompt next to each other. A response ends with the
        model's end token unless it was cut off at ``max_new_tokens``.

    Raises:
        RelexError: a prompt leaves no room for ``max_new_tokens`` (naming its line), the logits
            are not finite (naming the model), or a single sequence does not fit into memory.
    """
    limit = longest(model, tokenizer)
    for prompt in prompts:
        check_length(prompt, settings.max_new_tokens, limit)
    jobs = [
        (prompt, _uniforms(settings, number, sample))
        for number, prompt in enumerate(prompts)
        for sample in range(settings.samples)
    ]
    order = sorted(range(len(jobs)), key=lambda job: len(jobs[job][0].prompt))
    config = _generation_config(model, tokenizer, settings)
    responses = in_batches(
        [jobs[job] for job in order],
        settings.batch_size,
        lambda batch: _generate(model, batch, config, settings, name),
        name=name,
    )
    answered: dict[int, Item] = {
        job: jobs[job][0].answered(response) for job, response in zip(order, responses, strict=True)
    }
    return [answered[job] for job in range(len(jobs))]


def end_tokens(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Return the ids that end a response: the model's generation config's, else the tokenizer's."""
    named = model.generation_config.eos_token_id
    if named is None:
        named = tokenizer.eos_token_id
    if named is None:
        return ()
    return tuple(named) if isinstance(named, list | tuple) else (int(named),)


class _Inversion:
    """A logits processor: all weight on the token that inversion picks (module text).

    uniforms: float64 (B, steps) on the model's device; column t belongs to the t-th call.
    not_first: ids that the first call must not pick. name: what messages call the model.
    """

    def __init__(
        self, uniforms: torch.Tensor, temperature: float, not_first: Sequence[int], name: str
    ) -> None:
        self.uniforms = uniforms
        self.temperature = temperature
        self.not_first = list(not_first)
        self.name = name
        self.step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not bool(torch.isfinite(scores.amax(-1)).all()):  # amax passes NaN on
            raise RelexError(
                f"{self.name} gives logits that are not finite; its weights are broken, or "
                "float16 is too narrow for it"
            )
        if self.step == 0 and self.not_first:
            scores = scores.clone()
            scores[:, self.not_first] = -torch.inf
        self.step += 1
        if self.temperature == 0:
            return scores
        probabilities = torch.softmax(scores.double() / self.temperature, -1)
        cumulated = probabilities.cumsum(-1)
        marks = self.uniforms[:, self.step - 1, None] * cumulated[:, -1:]
        token = torch.searchsorted(cumulated, marks, right=True).clamp_max(scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)


def _generate(
    model: Any,
    batch: Sequence[tuple[Item, np.ndarray[Any, np.dtype[np.float64]]]],
    config: GenerationConfig,
    settings: Sampling,
    name: str,
) -> list[tuple[int, ...]]:
    """Return a response for each item of the batch."""
    device = model.device
    width = max(len(item.prompt) for item, _ in batch)
    ids = torch.full((len(batch), width), config.pad_token_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (item, _) in enumerate(batch):
        ids[row, width - len(item.prompt) :] = torch.tensor(item.prompt)
        mask[row, width - len(item.prompt) :] = 1
    uniforms = torch.from_numpy(np.stack([numbers for _, numbers in batch])).to(device)
    ends = set(config.eos_token_id or ())
    not_first = sorted(ends) if settings.never_empty else []
    picked = _Inversion(uniforms, settings.temperature, not_first, name)
    with torch.inference_mode():
        generated = model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            generation_config=config,
            logits_processor=[picked],
        )
    return [_up_to_end(row, ends) for row in generated[:, width:].tolist()]


def _up_to_end(ids: list[int], ends: set[int]) -> tuple[int, ...]:
    for position, token in enumerate(ids):
        if token in ends:
            return tuple(ids[: position + 1])
    return tuple(ids)


def _uniforms(
    settings: Sampling, prompt: int, sample: int
) -> np.ndarray[Any, np.dtype[np.float64]]:
    rng = np.random.default_rng([settings.seed, prompt, sample])
    return rng.random(settings.max_new_tokens)


def _generation_config(model: Any, tokenizer: Any, settings: Sampling) -> GenerationConfig:
    """Greedy, with everything that would bend the distribution set to neutral.

    What is left as None would be filled in from the model's own generation config.
    """
    from transformers import GenerationConfig

    ends = list(end_tokens(model, tokenizer))
    return GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        eos_token_id=ends or None,
        pad_token_id=ends[0] if ends else 0,
        do_sample=False,
        num_beams=1,
        num_return_sequences=1,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        min_length=0,
        use_cache=True,
        return_dict_in_generate=False,
    )
