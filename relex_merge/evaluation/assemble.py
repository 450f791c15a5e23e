"""The parts of an evaluation, put together as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from relex_merge.evaluation.choice import Choice
from relex_merge.evaluation.paired import paired
from relex_merge.evaluation.responses import ResponseStatistics
from relex_merge.evaluation.scores import TaskScores, differences
from relex_merge.report.candidates import LAST, Candidate, Model
from relex_merge.report.difference import Difference
from relex_merge.report.estimate import Estimate
from relex_merge.report.evaluated import statement_entries
from relex_merge.report.evaluation import (
    ChosenEntry,
    DivergenceEntry,
    Evaluation,
    FunctionEntry,
    ModelEntry,
    ResponseEntry,
    Split,
    TaskEntry,
)
from relex_merge.report.final_verdict import FinalVerdict
from relex_merge.report.functional import Backtest


@dataclass(frozen=True)
class TextResults:
    """What text showed.

    text: where it came from, in words. tokens, prompts: how many. backtests: functional ones.
    candidates: KL(last ‖ candidate). others: the same of other models, by name. responses: of
    candidates and other models that were sampled from. remarks: what could not be
    measured, and why.
    """

    text: str
    tokens: int
    prompts: int
    backtests: Sequence[Backtest]
    candidates: Mapping[Candidate, Estimate]
    others: Mapping[str, Estimate] = field(default_factory=dict)
    responses: Mapping[Model, ResponseStatistics] = field(default_factory=dict)
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class About:
    """What an evaluation is of.

    series: fingerprint of base and checkpoints. last_step: of the last observed checkpoint.
    settings: how it was made, JSON values. versions: package → version.
    """

    series: str
    last_step: float
    settings: Mapping[str, object]
    versions: Mapping[str, str]


def assemble(
    about: About,
    verdict: FinalVerdict,
    text: TextResults,
    tasks: Mapping[Split, Mapping[Model, Mapping[str, TaskScores]]],
    choice: Choice,
) -> Evaluation:
    """Put the parts of an evaluation together.

    Args:
        about: what it is of.
        verdict: from :func:`relex_merge.report.final_verdict.decide`.
        text: figures from text.
        tasks: part of the questions → model → task → scores; the last observed checkpoint goes by
            the name ``LAST`` and is in both parts. Empty without tasks.
        choice: from :mod:`relex_merge.evaluation.choice`.

    Returns:
        Plain values that JSON can hold.
    """
    return {
        "verdict": {
            "verdict": verdict.verdict,
            "reasons": list(verdict.reasons),
            "evidence": verdict.evidence,
            "statements": statement_entries(verdict),
        },
        "function": _function(text),
        "tasks": _tasks(tasks),
        "chosen": _chosen(choice, about.last_step),
        "series": about.series,
        "last_step": about.last_step,
        "sentences": _sentences(tasks.get("reported", {})),
        "settings": dict(about.settings),
        "versions": dict(about.versions),
    }


def model_entry(model: Model) -> ModelEntry:
    """Return a model's name, and for a candidate what it is."""
    if isinstance(model, str):
        return {"model": model}
    return {
        "model": model.name,
        "target_step": model.target_step,
        "scale": model.scale,
        "anchor": model.anchor,
    }


def _function(text: TextResults) -> FunctionEntry:
    return {
        "tokens": text.tokens,
        "prompts": text.prompts,
        "text": text.text,
        "backtests": [
            {
                "ratio": test.ratio,
                "skill": None if test.skill is None else test.skill.value,
                "stderr": None if test.skill is None else test.skill.stderr,
            }
            for test in text.backtests
        ],
        "candidates": [_divergence(model, kl) for model, kl in text.candidates.items()],
        "others": [_divergence(model, kl) for model, kl in text.others.items()],
        "responses": [_responses(model, r) for model, r in text.responses.items()],
        "remarks": list(text.remarks),
    }


def _divergence(model: Model, kl: Estimate) -> DivergenceEntry:
    return {**model_entry(model), "kl": kl.value, "stderr": kl.stderr}


def _responses(model: Model, found: ResponseStatistics) -> ResponseEntry:
    return {
        **model_entry(model),
        "responses": found.responses,
        "length": found.length.value,
        "length_stderr": found.length.stderr,
        "truncated": found.truncated.value,
        "truncated_stderr": found.truncated.stderr,
        "repetition": found.repetition.value,
        "repetition_stderr": found.repetition.stderr,
    }


def _tasks(
    parts: Mapping[Split, Mapping[Model, Mapping[str, TaskScores]]],
) -> dict[str, list[TaskEntry]]:
    entries: dict[str, list[TaskEntry]] = {}
    for split, models in parts.items():
        for model, tasks in models.items():
            for task, scores in tasks.items():
                last = None if model == LAST else models[LAST][task]
                entries.setdefault(task, []).append(_task(model, task, scores, last, split))
    return entries


def _task(
    model: Model, task: str, scores: TaskScores, last: TaskScores | None, split: Split
) -> TaskEntry:
    mean, d = scores.mean(), None
    if last is not None:
        d = paired([differences(scores, last, task=task, name=str(model))])
    return {
        **model_entry(model),
        "metric": scores.metric,
        "score": mean.value,
        "stderr": mean.stderr,
        "n": len(scores.values),
        "repeats": scores.repeats,
        "difference": None if d is None else d.mean,
        "difference_stderr": None if d is None else d.stderr,
        "interval": None if d is None else [d.low, d.high],
        "better": None if d is None else d.better,
        "would_tell": None if d is None else d.would_tell,
        "split": split,
    }


def _sentences(models: Mapping[Model, Mapping[str, TaskScores]]) -> list[str]:
    """Say of every model on the reported questions whether it is better, all tasks together."""
    return [
        f"{model_entry(model)['model']}: {overall(model, models).sentence}"
        for model in models
        if model != LAST
    ]


def overall(model: Model, models: Mapping[Model, Mapping[str, TaskScores]]) -> Difference:
    """Return a model's paired difference from the last observed checkpoint, all tasks together.

    Args:
        model: one of ``models``.
        models: model → task → scores, the last observed checkpoint by the name ``LAST``.
    """
    name = model_entry(model)["model"]
    return paired(
        [
            differences(scores, models[LAST][task], task=task, name=name)
            for task, scores in models[model].items()
        ]
    )


def _chosen(choice: Choice, last_step: float) -> ChosenEntry:
    if choice.chosen is not None:
        return {**model_entry(choice.chosen), "reasons": list(choice.reasons)}
    return {
        "model": LAST,
        "target_step": last_step,
        "scale": 0.0,
        "anchor": "last",
        "reasons": list(choice.reasons),
    }
