"""Successive halving: many candidates on few questions, few candidates on many.

Every round asks all candidates that are left, and the last observed checkpoint, questions that none
was asked before; the better half by mean paired difference goes on, with twice the questions. The
last observed checkpoint always stays. (Karnin, Koren and Somekh, *Almost Optimal Exploration in
Multi-Armed Bandits*, ICML 2013; Jamieson and Talwalkar, AISTATS 2016.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from relex_merge.errors import RelexError
from relex_merge.evaluation.paired import paired
from relex_merge.evaluation.scores import TaskScores, differences
from relex_merge.report.difference import Difference

Model = TypeVar("Model", bound=Hashable)

FEWEST = 32  # questions of the first round, all tasks together; fewer drop good ones by chance
FINALISTS = 2  # never halved further


@dataclass(frozen=True)
class Round(Generic[Model]):
    """What one round asked.

    models: who was asked, without the last observed checkpoint, the best first. questions: how
    many each had been asked by the end of it.
    """

    models: tuple[Model, ...]
    questions: int


@dataclass(frozen=True)
class Halving(Generic[Model]):
    """How the candidates did on the questions that choose.

    scores: model → task → scores, for all models; of those that were dropped on fewer questions.
    differences: of the finalists, who were asked everything, the best first. rounds: in order.
    """

    scores: Mapping[Model, Mapping[str, TaskScores]]
    differences: Mapping[Model, Difference]
    rounds: Sequence[Round[Model]]


def successive_halving(
    candidates: Sequence[Model],
    last: Model,
    questions: Mapping[str, Sequence[str]],
    ask: Callable[[Model, str, Sequence[str]], TaskScores],
) -> Halving[Model]:
    """Find the candidates that are worth asking all questions, and ask them.

    Args:
        candidates: at least one, without the last observed checkpoint. Where two do equally well
            the one that was ahead before goes on, at first the earlier one.
        last: the last observed checkpoint.
        questions: task → its questions that choose, in an order that means nothing
            (:func:`relex_merge.evaluation.split.choosing_part`).
        ask: measures a model on some questions of a task. It is called with the same blocks of
            questions for every model, in every run, whatever the candidates.

    Raises:
        RelexError: there is no question to choose by.
    """
    blocks = question_blocks(questions)
    scores: dict[Model, dict[str, TaskScores]] = {model: {} for model in (*candidates, last)}
    left = list(candidates)
    rounds: list[Round[Model]] = []
    while True:
        now, blocks = (blocks, []) if len(left) <= FINALISTS else (blocks[:1], blocks[1:])
        for model in (*left, last):
            for block in now:
                for task, documents in block.items():
                    _add(scores[model], task, ask(model, task, documents))
        found = {model: _difference(model, scores, last) for model in left}
        left.sort(key=lambda model: -found[model].mean)
        rounds.append(Round(tuple(left), found[left[0]].n))
        if not blocks:
            return Halving(scores, {model: found[model] for model in left}, rounds)
        left = left[: max(math.ceil(len(left) / 2), FINALISTS)]


def answers_of_a_race(candidates: int, questions: Mapping[str, Sequence[str]]) -> int:
    """Return how many answers a race asks for, the last observed checkpoint's among them.

    Args:
        candidates: how many take part, without the last observed checkpoint.
        questions: as for :func:`successive_halving`.

    Raises:
        RelexError: there is no question to choose by.
    """
    sizes = [sum(map(len, block.values())) for block in question_blocks(questions)]
    left, answers = candidates, 0
    while sizes:
        now, sizes = (sizes, []) if left <= FINALISTS else (sizes[:1], sizes[1:])
        answers += (left + 1) * sum(now)
        left = max(math.ceil(left / 2), FINALISTS)
    return answers


def question_blocks(questions: Mapping[str, Sequence[str]]) -> list[dict[str, Sequence[str]]]:
    """Divide questions into blocks, each as large as all before it together.

    Args:
        questions: task → its questions that choose.

    Returns:
        Blocks of about FEWEST, FEWEST, 2 FEWEST, 4 FEWEST, … questions: task → questions, the same
        share of every task.

    Raises:
        RelexError: there is no question.
    """
    whole = sum(map(len, questions.values()))
    if not whole:
        raise RelexError(
            "no question of these tasks falls into the quarter that chooses; use larger tasks or "
            "a larger --limit"
        )
    blocks: list[dict[str, Sequence[str]]] = []
    done = dict.fromkeys(questions, 0)
    share = FEWEST / whole
    while any(done[task] < len(documents) for task, documents in questions.items()):
        upto = {
            task: min(math.ceil(share * len(documents)), len(documents))
            for task, documents in questions.items()
        }
        block = {t: documents[done[t] : upto[t]] for t, documents in questions.items()}
        blocks.append({task: documents for task, documents in block.items() if documents})
        done, share = upto, 2 * share
    return blocks


def _add(known: dict[str, TaskScores], task: str, new: TaskScores) -> None:
    known[task] = known[task].joined(new) if task in known else new


def _difference(
    model: Model, scores: Mapping[Model, Mapping[str, TaskScores]], last: Model
) -> Difference:
    tasks = scores[last]
    return paired(
        [
            differences(scores[model][task], tasks[task], task=task, name=str(model))
            for task in tasks
        ]
    )
