"""lm-eval's real hf backend on local tasks; finished measurements are never made twice."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from relex_merge.errors import RelexError
from relex_merge.evaluation.backends import (
    Backend,
    BackendRequest,
    HfBackend,
    Subject,
    parse_arguments,
)
from relex_merge.evaluation.harness import measure
from relex_merge.evaluation.lm_eval_call import TaskSettings, run_task
from relex_merge.evaluation.sampling import Sampling, sample_responses
from relex_merge.evaluation.scores import differences
from relex_merge.evaluation.store import Store
from relex_merge.evaluation.tasks import LoadedTask, load_tasks
from relex_merge.evaluation.text import Text
from relex_merge.evaluation.tokens import tokenise
from tests.support.lm_eval_tasks import choice_task, write_task

SAMPLED = {"do_sample": True, "temperature": 1.0}


class Loads:
    """Makes subjects and counts how often a model is loaded."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.count = 0

    def __call__(self, model: Any, name: str = "base") -> Subject:
        def load() -> Backend:
            self.count += 1
            return HfBackend(model, self.tokenizer)

        return Subject(name, f"commit of {name}", "hf", load)


@pytest.fixture
def loads(tokenizer: Any) -> Loads:
    return Loads(tokenizer)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(scope="module")
def questions(base: Any, tokenizer: Any) -> list[dict[str, str]]:
    """Twelve questions; to every other one the base's own greedy answer is right."""
    prompts = tokenise([Text(f"{n}+1=", None, "") for n in range(12)], tokenizer, limit=None)
    answers = sample_responses(
        base, tokenizer, prompts, Sampling(temperature=0, max_new_tokens=4), name="base"
    )
    return [
        {"q": f"{n}+1=", "a": "no" if n % 2 else tokenizer.decode(list(answer.response))}
        for n, answer in enumerate(answers)
    ]


@pytest.fixture(scope="module")
def sums(questions: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> LoadedTask:
    folder = tmp_path_factory.mktemp("sums")
    stops = {"until": ["~"], "do_sample": False, "max_gen_toks": 4}
    write_task(folder, "sums", questions, generation_kwargs=stops)
    return load_tasks(["sums"], include_path=folder)[0]


@pytest.fixture(scope="module")
def shots(questions: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> LoadedTask:
    """The same questions with examples drawn at random."""
    folder = tmp_path_factory.mktemp("shots")
    write_task(folder, "shots", questions, fewshot_split="test", num_fewshot=1)
    return load_tasks(["shots"], include_path=folder)[0]


def test_scores_are_those_of_the_models_own_answers(
    base: Any, sums: LoadedTask, store: Store, loads: Loads
) -> None:
    found = measure(store, loads(base), sums, sums.documents, TaskSettings())
    assert [found.values[key] for key in sums.documents] == [1.0, 0.0] * 6
    assert found.metric == "exact_match,none"
    assert found.mean().value == 0.5
    assert found.mean().stderr == pytest.approx(np.std([1, 0] * 6, ddof=1) / 12**0.5)


def test_some_questions_only(base: Any, sums: LoadedTask, store: Store, loads: Loads) -> None:
    some = (sums.documents[7], sums.documents[2])
    found = measure(store, loads(base), sums, some, TaskSettings())
    assert found.values == {sums.documents[2]: 1.0, sums.documents[7]: 0.0}


def test_what_is_finished_is_not_measured_again(
    base: Any, last: Any, sums: LoadedTask, store: Store, loads: Loads
) -> None:
    settings = TaskSettings()
    first = measure(store, loads(base), sums, sums.documents, settings)
    again = measure(Store(store.folder), loads(base), sums, sums.documents, settings)
    assert first == again
    assert loads.count == 1
    measure(store, loads(last, "last"), sums, sums.documents, settings)  # another model
    measure(store, loads(base), sums, sums.documents[:3], settings)  # other questions
    measure(store, loads(base), sums, sums.documents, replace(settings, system_instruction="b"))
    measure(store, loads(base), sums, sums.documents, replace(settings, seed=5))
    assert loads.count == 5
    measure(store, loads(base), sums, sums.documents, replace(settings, batch_size=2))
    assert loads.count == 5  # the batch is no part of what is measured


def test_settings_do_not_stick_to_the_task(
    base: Any, sums: LoadedTask, store: Store, loads: Loads
) -> None:
    sampled = TaskSettings(gen_kwargs=SAMPLED, num_fewshot=0)
    before = copy.deepcopy(sums.task.get_config("generation_kwargs"))
    measure(store, loads(base), sums, sums.documents[:2], sampled)
    assert sums.task.get_config("generation_kwargs") == before


def test_all_models_are_asked_the_same(
    base: Any, last: Any, shots: LoadedTask, store: Store, loads: Loads
) -> None:
    settings = TaskSettings()
    one = measure(store, loads(base), shots, shots.documents, settings)
    two = measure(store, loads(last, "last"), shots, shots.documents, settings)
    assert one.prompts == two.prompts
    assert len(differences(one, two, task="shots", name="base")) == 12
    other = measure(store, loads(last, "last"), shots, shots.documents, replace(settings, seed=7))
    with pytest.raises(RelexError, match="shots: base was asked otherwise than the last"):
        differences(one, other, task="shots", name="base")


def test_mean_at_k_is_the_mean_of_runs_with_their_own_seeds(
    base: Any, sums: LoadedTask, store: Store, loads: Loads
) -> None:
    settings = TaskSettings(gen_kwargs={**SAMPLED, "temperature": 0.05}, repeats=3, seed=10)
    found = measure(store, loads(base), sums, sums.documents, settings)
    assert (loads.count, found.repeats) == (3, 3)
    runs = [run_task(loads(base), sums, sums.documents, settings, seed) for seed in (10, 11, 12)]
    columns = [run["scores"]["exact_match,none"] for run in runs]
    for key in sums.documents:
        assert found.values[key] == pytest.approx(np.mean([column[key] for column in columns]))
    more = measure(store, loads(base), sums, sums.documents, replace(settings, repeats=5))
    assert (loads.count, more.repeats) == (3 + 3 + 2, 5)


def test_greedy_decoding_is_not_repeated(
    base: Any, sums: LoadedTask, store: Store, loads: Loads
) -> None:
    with pytest.raises(RelexError, match="task sums decodes greedily, so 4 repeats"):
        measure(store, loads(base), sums, sums.documents, TaskSettings(repeats=4))
    with pytest.raises(RelexError, match="repeats is 0"):
        measure(store, loads(base), sums, sums.documents, TaskSettings(repeats=0))


def test_multiple_choice_agrees_with_log_likelihoods(
    base: Any, tokenizer: Any, store: Store, loads: Loads, tmp_path: Path
) -> None:
    choices = [" a", " b", " c"]
    documents = [{"q": q, "choices": choices, "a": n % 3} for n, q in enumerate("xyzuvw")]
    folder = choice_task(tmp_path / "task", "letters", documents)
    (task,) = load_tasks(["letters"], include_path=folder)
    found = measure(store, loads(base), task, task.documents, TaskSettings(repeats=5))
    assert found.metric == "acc,none"
    assert found.repeats == 1  # likelihoods are the same every time
    expected = []
    for document in documents:
        scores = [_loglikelihood(base, tokenizer, f"{document['q']}", c) for c in choices]
        expected.append(float(np.argmax(scores) == document["a"]))
    assert [found.values[key] for key in task.documents] == expected
    normed = measure(store, loads(base), task, task.documents, TaskSettings(metric="acc_norm"))
    assert (normed.metric, loads.count) == ("acc_norm,none", 1)
    with pytest.raises(RelexError, match=r"no metric f1; it has acc,none acc_norm,none"):
        measure(store, loads(base), task, task.documents, TaskSettings(metric="f1"))


def _loglikelihood(model: Any, tokenizer: Any, prompt: str, answer: str) -> float:
    ids = tokenizer(prompt + answer, return_tensors="pt")["input_ids"]
    start = len(tokenizer(prompt)["input_ids"])
    with torch.inference_mode():
        logprobs = torch.log_softmax(model(ids).logits[0, :-1].double(), -1)
    return float(logprobs.gather(1, ids[0, 1:, None])[start - 1 :].sum())


def test_the_call_is_simple_evaluate(
    base: Any, tokenizer: Any, shots: LoadedTask, store: Store, loads: Loads
) -> None:
    """Few-shot examples, decoding and seeds as lm_eval.simple_evaluate sets them."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    gen_kwargs = {**SAMPLED, "temperature": 0.05}
    settings = TaskSettings(num_fewshot=2, gen_kwargs=gen_kwargs, seed=3, batch_size=4)
    found = measure(store, loads(base), shots, shots.documents, settings)
    results = simple_evaluate(
        model=HFLM(pretrained=base, tokenizer=tokenizer, batch_size=4),
        tasks=[shots.task],
        task_manager=shots.manager,
        num_fewshot=2,
        gen_kwargs=gen_kwargs,
        bootstrap_iters=0,
        random_seed=3,
        numpy_random_seed=3,
        torch_random_seed=3,
        fewshot_random_seed=3,
    )
    samples = {sample["doc_hash"]: sample for sample in results["samples"]["shots"]}
    assert found.values == {key: s["exact_match"] for key, s in samples.items()}
    assert found.prompts == {key: s["prompt_hash"] for key, s in samples.items()}


def test_tasks_that_score_all_questions_together_cannot_be_compared(
    base: Any, store: Store, loads: Loads, tmp_path: Path
) -> None:
    metrics = [{"metric": "bleu", "aggregation": "bleu", "higher_is_better": True}]
    folder = write_task(tmp_path / "t", "bleu", [{"q": "a", "a": "b"}], metric_list=metrics)
    (task,) = load_tasks(["bleu"], include_path=folder)
    with pytest.raises(RelexError, match="task bleu has no score for a single question"):
        measure(store, loads(base), task, task.documents, TaskSettings())


def test_faults_inside_lm_eval_name_task_and_model(
    base: Any, sums: LoadedTask, store: Store, loads: Loads
) -> None:
    settings = TaskSettings(gen_kwargs={"until": 3})
    with pytest.raises(RelexError, match=r"task sums on base: lm-eval failed: [A-Z].*Error: "):
        measure(store, loads(base), sums, sums.documents, settings)
    assert not store.folder.exists()


def test_batches_shrink_where_memory_runs_out(
    base: Any, sums: LoadedTask, store: Store, loads: Loads
) -> None:
    class Hungry(type(base)):  # type: ignore[misc]
        """Asks for an exabyte when more than two sequences come at a time."""

        def forward(self, input_ids: torch.Tensor, **rest: Any) -> Any:
            if len(input_ids) > 2:
                torch.empty(2**58)
            return super().forward(input_ids, **rest)

    hungry = copy.deepcopy(base)
    hungry.__class__ = Hungry
    found = measure(store, loads(hungry), sums, sums.documents, TaskSettings(batch_size=8))
    assert [found.values[key] for key in sums.documents] == [1.0, 0.0] * 6


def test_vllm_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(RelexError, match=r"vLLM, which is not installed: pip install 'lm-eval"):
        BackendRequest("vllm", {"dtype": "bfloat16"}).check()
    with pytest.raises(RelexError, match="--model-args names `pretrained`; leave it out"):
        BackendRequest("vllm", {"dtype": "bfloat16", "pretrained": "gpt2"}).check()


def test_arguments_of_hf_are_those_of_a_model_that_is_in_memory() -> None:
    BackendRequest("hf", {"max_length": 64, "add_bos_token": True}).check()
    with pytest.raises(RelexError, match="--model-args dtype says how a model is loaded"):
        BackendRequest("hf", {"dtype": "bfloat16"}).check()
    with pytest.raises(RelexError, match="--model-args max_lenght is not known to lm-eval"):
        BackendRequest("hf", {"max_lenght": 64}).check()
    with pytest.raises(RelexError, match="--model openai: it can be hf or vllm"):
        BackendRequest("openai").check()


def test_arguments_are_read_as_lm_eval_reads_them() -> None:
    found = parse_arguments("do_sample=true,temperature=0.6,dtype=bfloat16")
    assert found == {"do_sample": True, "temperature": 0.6, "dtype": "bfloat16"}
    with pytest.raises(RelexError, match="'do_sample' is not of the form key=value"):
        parse_arguments("do_sample")


def test_importing_the_room_imports_neither_lm_eval_nor_vllm() -> None:
    import subprocess

    code = (
        "import importlib, pkgutil, sys, relex_merge.evaluation as room\n"
        "for module in pkgutil.iter_modules(room.__path__, room.__name__ + '.'):\n"
        "    importlib.import_module(module.name)\n"
        "assert not {'lm_eval', 'vllm', 'datasets', 'transformers.models'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
