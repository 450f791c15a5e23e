"""Tasks measured on models by lm-evaluation-harness, each measurement once.

All models get the same questions, prompts (few-shot examples, chat template, tokenizer) and
decoding; the hashes of the prompts are kept and compared. A measurement is one model on one task
with one seed and one set of questions; what is finished is kept in a store.

mean@k, as RLVR papers report sampled maths tasks: the task runs k times with seeds seed, seed + 1,
…, and a question's score is the mean of its k scores. pass@k is something else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from relex_merge.errors import RelexError
from relex_merge.evaluation.backends import Subject
from relex_merge.evaluation.lm_eval_call import Record, TaskSettings, run_task
from relex_merge.evaluation.scores import TaskScores
from relex_merge.evaluation.store import Store
from relex_merge.evaluation.tasks import LoadedTask

PREFERRED = "math_verify"  # of a task's metrics, where it is among them; else the task's first


def measure(
    store: Store,
    subject: Subject,
    task: LoadedTask,
    documents: Sequence[str],
    settings: TaskSettings,
) -> TaskScores:
    """Return a model's scores on some questions of a task, measured or from the store.

    Args:
        store: of finished measurements; what is measured now is kept there.
        subject: the model.
        task: from :func:`relex_merge.evaluation.tasks.load_tasks`.
        documents: keys of the questions, at least one. The same list for every model: few-shot
            examples may be drawn one question after the other.
        settings: how.

    Raises:
        RelexError: the task decodes greedily and is to be repeated; it has no score for a single
            question; lm-eval fails; a single sequence does not fit into memory.
    """
    repeats = _repeats(task, settings)
    records = []
    for repeat in range(repeats):
        key = _key(subject, task, documents, settings, settings.seed + repeat)
        record: Record | None = store.get(key)
        if record is None:
            record = run_task(subject, task, documents, settings, settings.seed + repeat)
            store.put(key, record)
        records.append(record)
    return _mean(task, records, settings.metric)


def _repeats(task: LoadedTask, settings: TaskSettings) -> int:
    if settings.repeats < 1:
        raise RelexError(f"repeats is {settings.repeats}; it must be at least 1")
    if task.task.get_config("output_type") != "generate_until":
        return 1  # likelihoods are the same every time
    decoding = {**(task.task.get_config("generation_kwargs") or {}), **settings.gen_kwargs}
    sampled = decoding.get("do_sample", False) and float(decoding.get("temperature", 1)) > 0
    if settings.repeats > 1 and not sampled:
        raise RelexError(
            f"task {task.name} decodes greedily, so {settings.repeats} repeats would be equal; "
            "sample with --gen-kwargs do_sample=true,temperature=0.6, or leave --repeats out"
        )
    return settings.repeats


def _key(
    subject: Subject,
    task: LoadedTask,
    documents: Sequence[str],
    settings: TaskSettings,
    seed: int,
) -> dict[str, Any]:
    return {
        "model": subject.identity,
        "backend": subject.kind,
        "model_args": dict(subject.args),
        "task": task.name,
        "task_identity": task.identity,
        "questions": hashlib.sha256("\n".join(sorted(documents)).encode()).hexdigest(),
        "num_fewshot": settings.num_fewshot,
        "gen_kwargs": dict(settings.gen_kwargs),
        "apply_chat_template": settings.apply_chat_template,
        "fewshot_as_multiturn": settings.fewshot_as_multiturn,
        "system_instruction": settings.system_instruction,
        "seed": seed,
        "fewshot_seed": settings.seed,
        "lm_eval": version("lm_eval"),
    }


def _mean(task: LoadedTask, records: Sequence[Record], wanted: str | None) -> TaskScores:
    """Average the repeats, question by question."""
    name = _main_metric(task, list(records[0]["scores"]), wanted)
    columns = [record["scores"][name] for record in records]
    return TaskScores(
        metric=name,
        values={key: sum(column[key] for column in columns) / len(columns) for key in columns[0]},
        higher_is_better=records[0]["higher_is_better"][name.partition(",")[0]],
        prompts=records[0]["prompts"],
        repeats=len(records),
    )


def _main_metric(task: LoadedTask, names: Sequence[str], wanted: str | None) -> str:
    """Return the ``metric,filter`` that counts."""
    if not names:
        raise RelexError(
            f"task {task.name} has no score for a single question, only for all together; models "
            "cannot be compared on it"
        )
    if wanted is None:
        preferred = [name for name in names if name.partition(",")[0] == PREFERRED]
        return (preferred or list(names))[0]
    for name in names:
        if wanted in (name, name.partition(",")[0]):
            return name
    raise RelexError(f"task {task.name} has no metric {wanted}; it has {' '.join(names)}")
