"""The measured choice: candidates race on a quarter of the questions, the rest is reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from relex_merge.errors import RelexError
from relex_merge.evaluation.choice import Choice, choose_by_labels
from relex_merge.evaluation.halving import Halving, successive_halving
from relex_merge.evaluation.scores import TaskScores
from relex_merge.evaluation.split import choosing_part, reported_part
from relex_merge.report.candidates import LAST, Candidate, Model
from relex_merge.report.functional import Function

Ask: TypeAlias = Callable[[Model, str, Sequence[str]], TaskScores]


def measured_choice(
    candidates: Sequence[Candidate],
    documents: Mapping[str, Sequence[str]],
    ask: Ask,
    function: Mapping[Candidate, Function],
) -> tuple[Choice, Halving[Model]]:
    """Choose among the candidates and the last observed checkpoint.

    Args:
        candidates: at least one; the preferred first, for where two do equally well.
        documents: task → the keys of all its questions. Only those that choose are asked.
        ask: measures a model on some questions of a task; the last observed checkpoint is asked
            for by the name ``LAST``.
        function: functional figures of the candidates.

    Returns:
        The choice, and how the candidates did on the questions that choose.

    Raises:
        RelexError: no question falls into the part that chooses.
    """
    questions = {task: choosing_part(task, keys) for task, keys in documents.items()}
    race: Halving[Model] = successive_halving(candidates, LAST, questions, ask)
    labels = {c: d for c, d in race.differences.items() if isinstance(c, Candidate)}
    return choose_by_labels(labels, function), race


def report(
    models: Sequence[Model], documents: Mapping[str, Sequence[str]], ask: Ask
) -> dict[Model, dict[str, TaskScores]]:
    """Measure models on the questions that had no part in the choice.

    Args:
        models: candidates, and the names of other models; ``LAST`` must be among them for
            differences to be shown.
        documents: task → the keys of all its questions.
        ask: as in :func:`measured_choice`.

    Raises:
        RelexError: a task has no question that is reported.
    """
    questions = {task: reported_part(task, keys) for task, keys in documents.items()}
    for task, keys in questions.items():
        if not keys:
            raise RelexError(
                f"all {len(documents[task])} questions of {task} fall into the quarter that "
                "chooses, none is left to report; use a larger task or a larger --limit"
            )
    return {
        model: {task: ask(model, task, keys) for task, keys in questions.items()}
        for model in models
    }
