"""Responses: the model's own distribution, the same for a seed whatever the batch."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from relex_merge.errors import RelexError
from relex_merge.evaluation.sampling import Sampling, end_tokens, sample_responses
from relex_merge.evaluation.tokens import Item

PROMPTS = [
    Item((5, 6, 7), (), 0, "p:1"),
    Item((9,), (), 1, "p:2"),
    Item((11, 12, 13, 14, 15, 16), (), 2, "p:3"),
]
SAMPLING = Sampling(samples=2, max_new_tokens=12, seed=3)


@pytest.fixture(scope="module")
def ending(base: Any) -> Any:
    """The base, with a third of all tokens ending a response."""
    model = copy.deepcopy(base)
    model.generation_config.eos_token_id = list(range(20))
    return model


def _greedy(model: Any, prompt: tuple[int, ...], length: int) -> tuple[int, ...]:
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        for _ in range(length):
            ids = torch.cat([ids, model(ids).logits[:, -1].argmax(-1, keepdim=True)], 1)
    return tuple(ids[0, len(prompt) :].tolist())


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_the_batch_changes_nothing(base: Any, tokenizer: Any, batch_size: int) -> None:
    whole = sample_responses(base, tokenizer, PROMPTS, SAMPLING, name="base")
    parts = sample_responses(
        base, tokenizer, PROMPTS, replace(SAMPLING, batch_size=batch_size), name="base"
    )
    assert parts == whole
    assert [item.cluster for item in whole] == [0, 0, 1, 1, 2, 2]
    assert whole[0].response != whole[1].response


def test_another_seed_gives_other_responses(base: Any, tokenizer: Any) -> None:
    first = sample_responses(base, tokenizer, PROMPTS, SAMPLING, name="base")
    second = sample_responses(base, tokenizer, PROMPTS, replace(SAMPLING, seed=4), name="base")
    assert first != second


def test_temperature_zero_is_greedy(base: Any, tokenizer: Any) -> None:
    settings = Sampling(temperature=0, max_new_tokens=8)
    found = sample_responses(base, tokenizer, PROMPTS, settings, name="base")
    assert [item.response for item in found] == [_greedy(base, p.prompt, 8) for p in PROMPTS]


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_follow_the_models_distribution(
    base: Any, tokenizer: Any, temperature: float
) -> None:
    count = 4000
    settings = Sampling(temperature, samples=count, max_new_tokens=1, batch_size=count)
    found = sample_responses(base, tokenizer, PROMPTS[:1], settings, name="base")
    with torch.inference_mode():
        logits = base(torch.tensor([PROMPTS[0].prompt])).logits[0, -1].double()
    expected = count * torch.softmax(logits / temperature, -1).numpy()
    observed = np.bincount([item.response[0] for item in found], minlength=len(expected))
    chi2 = ((observed - expected) ** 2 / expected).sum()
    assert chi2 < 63 + 4 * np.sqrt(2 * 63)  # 64 tokens: 63 degrees of freedom, four sigma


def test_responses_end_with_the_end_token_or_at_the_limit(ending: Any, tokenizer: Any) -> None:
    found = sample_responses(
        ending, tokenizer, PROMPTS, replace(SAMPLING, samples=8, max_new_tokens=5), name="m"
    )
    ends = set(end_tokens(ending, tokenizer))
    assert len(ends) == 20
    lengths = {len(item.response) for item in found}
    assert len(lengths) > 1
    assert max(lengths) == 5
    for item in found:
        assert not ends & set(item.response[:-1])
        assert len(item.response) == 5 or item.response[-1] in ends


def test_end_tokens_of_the_tokenizer_where_the_model_names_none(base: Any, tokenizer: Any) -> None:
    model = copy.deepcopy(base)
    model.generation_config.eos_token_id = None
    assert end_tokens(model, tokenizer) == (tokenizer.eos_token_id,)
    model.generation_config.eos_token_id = 7
    assert end_tokens(model, tokenizer) == (7,)


def test_the_models_own_sampling_habits_are_left_out(base: Any, tokenizer: Any) -> None:
    model = copy.deepcopy(base)
    model.generation_config.update(
        do_sample=True, top_k=1, temperature=0.1, repetition_penalty=5.0, no_repeat_ngram_size=1
    )
    assert sample_responses(model, tokenizer, PROMPTS, SAMPLING, name="m") == sample_responses(
        base, tokenizer, PROMPTS, SAMPLING, name="base"
    )


def test_a_prompt_without_room_for_the_response(base: Any, tokenizer: Any) -> None:
    with pytest.raises(RelexError, match="p:3: 66 tokens with 60 to be sampled"):
        sample_responses(base, tokenizer, PROMPTS, Sampling(max_new_tokens=60), name="base")


def test_broken_weights_are_named(base: Any, tokenizer: Any) -> None:
    broken = copy.deepcopy(base)
    with torch.no_grad():
        broken.model.norm.weight[0] = torch.nan
    with pytest.raises(RelexError, match="step 9 gives logits that are not finite"):
        sample_responses(broken, tokenizer, PROMPTS, SAMPLING, name="step 9")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"temperature": -1.0}, "temperature is -1"),
        ({"samples": 0}, "samples is 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_impossible_settings(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(RelexError, match=says):
        Sampling(**settings)


def test_a_response_that_must_not_be_empty_begins_with_another_token(
    base: Any, tokenizer: Any
) -> None:
    """From its own start the base ends at once here, as the demo's does."""
    ending = copy.deepcopy(base)
    end = _greedy(base, PROMPTS[0].prompt, 1)[0]
    ending.generation_config.eos_token_id = [end]
    settings = Sampling(temperature=0, max_new_tokens=6)
    (empty,) = sample_responses(ending, tokenizer, PROMPTS[:1], settings, name="m")
    assert empty.response == (end,)
    never = replace(settings, never_empty=True)
    (found,) = sample_responses(ending, tokenizer, PROMPTS[:1], never, name="m")
    assert found.response[0] != end
    with torch.inference_mode():
        logits = base(torch.tensor([PROMPTS[0].prompt])).logits[0, -1].clone()
        logits[end] = -torch.inf
    assert found.response[0] == int(logits.argmax())
    rest = _greedy(base, PROMPTS[0].prompt + found.response[:1], 5)
    upto = rest.index(end) + 1 if end in rest else 5
    assert found.response[1:] == rest[:upto]
