"""One call of lm-evaluation-harness: one model, one task, some of its questions.

This is ``lm_eval.simple_evaluate`` for a task that is loaded already, through ``lm_eval.evaluate``,
which it calls itself; what it adds is a description of the machine, which starts pip and a dozen
other programs and takes three seconds each time. A test compares the two.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
import torch

from relex_merge.errors import RelexError
from relex_merge.evaluation.backends import Subject
from relex_merge.evaluation.batches import shrinking
from relex_merge.evaluation.silence import silent_lm_eval
from relex_merge.evaluation.tasks import LoadedTask


@dataclass(frozen=True)
class TaskSettings:
    """How tasks are run; the names are lm-eval's.

    num_fewshot: None leaves it to the task. gen_kwargs: decoding, such as {"do_sample": True,
    "temperature": 0.6}. apply_chat_template: as a chat; fewshot_as_multiturn: with few-shot
    examples as earlier turns of it. repeats: k of mean@k. metric: ``exact_match`` or
    ``exact_match,strict-match`` (metric and filter); None for the task's main one. seed: of
    sampling and of the choice of few-shot examples. batch_size: changes no result but by rounding.
    """

    num_fewshot: int | None = None
    gen_kwargs: Mapping[str, Any] = field(default_factory=dict)
    apply_chat_template: bool = False
    fewshot_as_multiturn: bool = True
    system_instruction: str | None = None
    repeats: int = 1
    metric: str | None = None
    seed: int = 1234
    batch_size: int = 16
    confirm_run_unsafe_code: bool = False


class Record(TypedDict):
    """One finished measurement. scores: ``metric,filter`` → question → score."""

    scores: dict[str, dict[str, float]]
    prompts: dict[str, str]
    higher_is_better: dict[str, bool]


def run_task(
    subject: Subject,
    task: LoadedTask,
    documents: Sequence[str],
    settings: TaskSettings,
    seed: int,
) -> Record:
    """Have lm-eval measure one model on some questions of one task.

    Args:
        subject: the model; its backend is loaded now.
        task: from :func:`relex_merge.evaluation.tasks.load_tasks`.
        documents: keys of the questions, at least one (lm-eval takes an empty list for all).
        settings: how.
        seed: of sampling.

    Raises:
        RelexError: lm-eval fails, or a single sequence does not fit into memory.
    """
    from lm_eval import evaluate

    wanted = set(documents)
    places = [place for place, key in enumerate(task.documents) if key in wanted]
    backend = subject.load()

    def work(batch_size: int) -> Any:
        _set_seeds(seed)
        return evaluate(
            backend.open(batch_size),
            {"tasks": {task.name: task.task}},
            samples={task.name: places},
            bootstrap_iters=0,
            system_instruction=settings.system_instruction,
            apply_chat_template=settings.apply_chat_template,
            fewshot_as_multiturn=settings.fewshot_as_multiturn,
            confirm_run_unsafe_code=settings.confirm_run_unsafe_code,
        )

    try:
        with silent_lm_eval(), _configured(task.task, settings):
            results, _ = shrinking(work, settings.batch_size, name=subject.name)
    except RelexError:
        raise
    except Exception as error:  # tasks and backends run code of their own
        raise RelexError(
            f"task {task.name} on {subject.name}: lm-eval failed: {type(error).__name__}: {error}"
        ) from error
    return _record(task, results)


@contextmanager
def _configured(task: Any, settings: TaskSettings) -> Iterator[None]:
    """Apply the settings to lm-eval's task as ``simple_evaluate`` does, and take them back."""
    keys = ("generation_kwargs", "num_fewshot")
    before = {key: copy.deepcopy(task.get_config(key)) for key in keys}
    shots = before["num_fewshot"]
    if shots is None or (settings.num_fewshot is not None and shots != 0):  # 0 is the task's word
        task.set_config("num_fewshot", settings.num_fewshot or 0)
    if settings.gen_kwargs and task.get_config("output_type") == "generate_until":
        merged = {**(before["generation_kwargs"] or {}), **settings.gen_kwargs}
        task.set_config("generation_kwargs", merged)
    task.set_fewshot_seed(settings.seed)
    try:
        yield
    finally:
        for key, value in before.items():
            task.set_config(key, value)


def _set_seeds(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _record(task: LoadedTask, results: Mapping[str, Any]) -> Record:
    """Pick the numbers out of lm-eval's samples; values that are no numbers are left out."""
    scores: dict[str, dict[str, float]] = {}
    prompts: dict[str, str] = {}
    for sample in results["samples"][task.name]:
        key = task.documents[sample["doc_id"]]
        prompts[key] = sample["prompt_hash"]
        for metric in sample["metrics"]:
            value = sample[metric]
            if isinstance(value, int | float) and math.isfinite(value):
                scores.setdefault(f"{metric},{sample['filter']}", {})[key] = float(value)
    better = results["higher_is_better"].get(task.name, {})
    metrics = {name.partition(",")[0] for name in scores}
    return {
        "scores": scores,
        "prompts": prompts,
        "higher_is_better": {metric: better.get(metric) is not False for metric in metrics},
    }
