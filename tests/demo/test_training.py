"""What the demo trains on and how: tasks, tokenizer, sampling, GRPO, checkpoints."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from relex_merge.demo.evaluate import evaluate, standard_error
from relex_merge.demo.grpo import Grpo, advantages
from relex_merge.demo.model import (
    EOS,
    PAD,
    build_model,
    build_tokenizer,
    decode,
    encode,
    load_model,
    one_thread,
)
from relex_merge.demo.sampling import answer
from relex_merge.demo.settings import Pretraining
from relex_merge.demo.tasks import HELD_OUT, load_task, split_prompts
from tests.support.demo_runs import (
    SHORT,
    assert_same_bits,
    small_settings,
    small_split,
    train_small,
    weights,
)
from tests.support.first_digit import TASK
from tests.support.models import Series

# ---- tasks


@pytest.mark.parametrize("name", ["addition", "sorting"])
class TestEveryTask:
    def test_held_out_problems_are_never_trained_on(self, name: str) -> None:
        split = split_prompts(load_task(name), 7)
        assert len(split.held_out) == HELD_OUT >= 2000
        assert not set(split.train) & set(split.held_out)
        assert len(set(split.train)) == len(split.train) > HELD_OUT

    def test_the_split_depends_on_the_seed_alone(self, name: str) -> None:
        task = load_task(name)
        random.seed(1)
        first = split_prompts(task, 7)
        random.seed(2)
        assert split_prompts(task, 7) == first
        assert split_prompts(task, 8) != first

    def test_the_verifier_says_1_to_right_answers_and_0_to_all_others(self, name: str) -> None:
        task = load_task(name)
        for prompt in split_prompts(task, 0).held_out[:200]:
            right = task.solve(prompt)
            assert task.verify(prompt, right) == 1
            for wrong in ("", right + right[0], right[:-1], "=" + right[1:]):
                assert task.verify(prompt, wrong) == 0

    def test_the_base_data_is_right_part_of_the_time(self, name: str) -> None:
        task = load_task(name)
        prompts = split_prompts(task, 0).train
        assert 0.2 < sum(map(task.competence, prompts)) / len(prompts) < 0.5
        wrong = sum(task.verify(p, task.habit(p)) == 0 for p in prompts) / len(prompts)
        assert wrong > 0.95

    def test_texts_fit_the_alphabet_and_the_lengths_that_the_task_declares(self, name: str) -> None:
        task = load_task(name)
        prompts = split_prompts(task, 0).train
        assert len({len(p) for p in prompts}) == 1
        for prompt in prompts[:500]:
            for text in (prompt, task.solve(prompt), task.habit(prompt)):
                assert set(text) <= set(task.alphabet)
            assert len(task.solve(prompt)) <= task.answer_length
            assert len(task.habit(prompt)) <= task.answer_length


@pytest.mark.parametrize(
    ("name", "prompt", "right"),
    [("addition", "47+85=", "132"), ("addition", "12+34=", "046"), ("sorting", "30921=", "01239")],
)
def test_answers_are_right(name: str, prompt: str, right: str) -> None:
    assert load_task(name).solve(prompt) == right


# ---- the model and its answers


@pytest.mark.parametrize("name", ["addition", "sorting"])
def test_the_model_has_fewer_than_a_million_parameters(name: str) -> None:
    model = build_model(len(build_tokenizer(load_task(name))), Pretraining(), seed=0)
    assert sum(p.numel() for p in model.parameters()) < 1_000_000


@pytest.mark.parametrize("name", ["addition", "sorting"])
def test_the_tokenizer_gives_back_every_text(name: str) -> None:
    task = load_task(name)
    tokenizer = build_tokenizer(task)
    prompts = split_prompts(task, 0).train[:50]
    tokens = encode(tokenizer, prompts)
    assert tokens.shape == (50, len(prompts[0]))
    assert decode(tokenizer, tokens) == prompts
    assert not ((tokens == PAD) | (tokens == EOS)).any()


def test_greedy_answers_are_those_of_generate(real_series: Series) -> None:
    model, tokenizer = load_model(real_series.checkpoints[-1]), build_tokenizer(TASK)
    questions = encode(tokenizer, small_split(small_settings()).held_out[:64])
    with torch.inference_mode():
        ours = answer(model, questions, length=2)
        theirs = model.generate(
            questions, attention_mask=torch.ones_like(questions), max_new_tokens=2, do_sample=False
        )[:, questions.shape[1] :]
    assert torch.equal(ours.tokens, theirs)


def test_log_probabilities_are_those_of_a_plain_forward_pass(real_series: Series) -> None:
    model, tokenizer = load_model(real_series.base), build_tokenizer(TASK)
    questions = encode(tokenizer, small_split(small_settings()).held_out[:16])
    with torch.inference_mode():
        rollouts = answer(model, questions, length=2, group=3, rng=torch.Generator().manual_seed(0))
        text = torch.cat([questions.repeat_interleave(3, 0), rollouts.tokens], 1)
        logprobs = model(text[:, :-1]).logits[:, -2:].log_softmax(-1)
        each = logprobs.gather(2, rollouts.tokens[:, :, None])[:, :, 0]
        whole = (each * (rollouts.tokens != PAD)).sum(1)
    torch.testing.assert_close(rollouts.logprob, whole, rtol=1e-4, atol=1e-5)


def test_the_standard_error_is_that_of_a_share() -> None:
    assert standard_error(0.5, 2500) == pytest.approx(0.01)
    assert standard_error(0.0, 2500) == 0.0


# ---- training


def test_advantages_are_normalised_within_each_group() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    found = advantages(rewards)
    torch.testing.assert_close(found.mean(1), torch.zeros(3), atol=1e-6, rtol=0)
    assert found[1].tolist() == [0, 0, 0, 0]
    torch.testing.assert_close(found[[0, 2]].std(1), torch.ones(2), atol=1e-3, rtol=0)


def test_grpo_raises_the_reward(real_series: Series) -> None:
    settings = small_settings()
    how = replace(settings, rlvr=replace(settings.rlvr, lr=1e-3))
    model, tokenizer = load_model(real_series.base), build_tokenizer(TASK)
    split = small_split(settings)
    with one_thread():
        before = evaluate(model, tokenizer, TASK, split.held_out, 0)
        trainer = Grpo(model, tokenizer, TASK, split.train, how)
        for _ in range(30):
            trainer.step()
        after = evaluate(model, tokenizer, TASK, split.held_out, 0)
    assert 0.15 < before.sampled < 0.45
    assert after.sampled > 1.5 * before.sampled
    assert after.greedy > 1.5 * before.greedy


def test_the_learning_rate_rises_through_the_warm_up_also_after_an_interruption(
    real_series: Series,
) -> None:
    settings = small_settings()
    train = small_split(settings).train

    def moved(warm_up: int, steps: int, interrupt: int | None = None) -> torch.Tensor:
        how = replace(settings, rlvr=replace(settings.rlvr, warm_up=warm_up))
        model, tokenizer = load_model(real_series.base), build_tokenizer(TASK)
        norm = model.model.norm.weight
        start = norm.detach().clone()
        trainer = Grpo(model, tokenizer, TASK, train, how)
        for step in range(steps):
            if step == interrupt:
                state = trainer.state()
                trainer = Grpo(model, tokenizer, TASK, train, how)
                trainer.restore(state)
            trainer.step()
        moved: torch.Tensor = norm.detach() - start
        return moved

    with one_thread():
        # AdamW's first update is as long as the learning rate, and a quarter of it here.
        torch.testing.assert_close(4 * moved(4, 1), moved(0, 1), rtol=1e-2, atol=1e-7)
        assert torch.equal(moved(4, 4, interrupt=2), moved(4, 4))
        assert not torch.equal(moved(4, 4), moved(3, 4))


def test_a_seed_decides_every_bit(real_series: Series, tmp_path: Path) -> None:
    torch.manual_seed(99)
    random.seed(99)
    torch.set_num_threads(2)
    state = torch.random.get_rng_state()
    session = train_small(tmp_path / "again", small_settings(), last=4)
    assert_same_bits(session.base, real_series.base)
    for step in range(1, 5):
        assert_same_bits(session.checkpoint(step), real_series.checkpoints[step - 1])
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.get_num_threads() == 2


def test_another_seed_makes_another_base(tmp_path: Path) -> None:
    one, other = (
        train_small(tmp_path / str(seed), small_settings(seed, pretraining=SHORT), last=0)
        for seed in (0, 1)
    )
    assert not torch.equal(
        weights(one.base)["model.norm.weight"], weights(other.base)["model.norm.weight"]
    )


def test_checkpoints_are_ordinary_folders_in_float32(real_series: Series) -> None:
    for folder in (real_series.base, real_series.checkpoints[-1]):
        assert AutoConfig.from_pretrained(folder).model_type == "qwen2"
        assert {w.dtype for w in weights(folder).values()} == {torch.float32}
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        inputs = tokenizer("4071=", return_tensors="pt")
        out = model.generate(**inputs, max_new_tokens=2, do_sample=False)
        text = tokenizer.decode(out[0], skip_special_tokens=True)
        assert text.startswith("4071=")


def test_every_step_moves_the_weights(real_series: Series) -> None:
    states = [real_series.base_state, *real_series.states]
    name = "model.layers.0.mlp.up_proj.weight"
    for earlier, later in itertools.pairwise(states):
        assert not torch.equal(earlier[name], later[name])
