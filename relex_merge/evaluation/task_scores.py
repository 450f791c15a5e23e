"""What tasks show: candidates race on the questions that choose, a few are reported on the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relex_merge.evaluation.choice import Choice, choose_by_function
from relex_merge.evaluation.halving import answers_of_a_race
from relex_merge.evaluation.harness import measure
from relex_merge.evaluation.measured_choice import measured_choice, report
from relex_merge.evaluation.split import choosing_part, reported_part
from relex_merge.evaluation.store import Store
from relex_merge.pipeline.progress import progress_bar
from relex_merge.report.candidates import BASE, LAST

if TYPE_CHECKING:
    from relex_merge.evaluation.compared import Compared
    from relex_merge.evaluation.request import EvaluationRequest
    from relex_merge.evaluation.scores import TaskScores
    from relex_merge.evaluation.tasks import LoadedTask
    from relex_merge.report.candidates import Candidate, Model
    from relex_merge.report.evaluation import Split
    from relex_merge.report.functional import Function


@dataclass(frozen=True)
class TaskFigures:
    """choice: with its reasons. parts: part of the questions → model → task → scores."""

    choice: Choice
    parts: Mapping[Split, Mapping[Model, Mapping[str, TaskScores]]] = field(default_factory=dict)

    @property
    def reported(self) -> Mapping[Model, Mapping[str, TaskScores]]:
        """Model → task → scores on the questions that had no part in the choice."""
        return self.parts.get("reported", {})


def measure_tasks(
    compared: Compared,
    tasks: Sequence[LoadedTask],
    function: Mapping[Candidate, Function],
    request: EvaluationRequest,
) -> TaskFigures:
    """Choose among the candidates, by tasks where there are any, and report on the winner.

    Args:
        compared: the models.
        tasks: loaded; may be empty.
        function: functional figures of the candidates.
        request: how tasks are run.

    Raises:
        RelexError: lm-eval fails, or a task has too few questions.
    """
    candidates = compared.candidates
    if request.tasks is None:
        return TaskFigures(choose_by_function(candidates[0], function))
    settings = request.tasks.settings
    by_name = {task.name: task for task in tasks}
    documents = {task.name: task.documents for task in tasks}
    store = Store(request.store)
    with progress_bar("answering questions", quiet=request.quiet) as start:
        advance = start(most_answers(len(candidates), len(_shown(compared, None)) + 1, documents))

        def ask(model: Model, task: str, keys: Sequence[str]) -> TaskScores:
            subject = compared.subjects.for_lm_eval(model)
            scores = measure(store, subject, by_name[task], keys, settings)
            advance(len(keys))
            return scores

        choice, race = measured_choice(candidates, documents, ask, function)
        reported = report(_shown(compared, choice.chosen), documents, ask)
    return TaskFigures(choice, {"choosing": race.scores, "reported": reported})


def _shown(compared: Compared, chosen: Candidate | None) -> list[Model]:
    """Return the models that are asked the questions which are reported, each once."""
    sources = compared.subjects.sources
    wanted: list[Model] = [LAST, *([BASE] if BASE in sources else []), compared.candidates[0]]
    wanted += [chosen] if chosen is not None else []
    wanted += [*compared.shown, *(model for model in sources if isinstance(model, str))]
    return list(dict.fromkeys(wanted))


def most_answers(candidates: int, shown: int, documents: Mapping[str, Sequence[str]]) -> int:
    """Return how many answers there are at most, of all models to all questions.

    Args:
        candidates: how many race.
        shown: how many models are reported.
        documents: task → the keys of all its questions.
    """
    choosing = {task: choosing_part(task, keys) for task, keys in documents.items()}
    reported = sum(len(reported_part(task, keys)) for task, keys in documents.items())
    return answers_of_a_race(candidates, choosing) + shown * reported
