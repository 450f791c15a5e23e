"""An evaluation from recipe or outputs to verdict: text first, then tasks, then the choice."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from relex_merge.errors import RelexError
from relex_merge.evaluation.assemble import About, assemble, overall
from relex_merge.evaluation.backends import BackendRequest
from relex_merge.evaluation.compared import fitting_threads
from relex_merge.evaluation.from_outputs import compare_outputs
from relex_merge.evaluation.from_recipe import compare_recipe
from relex_merge.evaluation.silence import one_display, silent_lm_eval
from relex_merge.evaluation.task_scores import measure_tasks
from relex_merge.evaluation.tasks import dataset_of, load_tasks
from relex_merge.evaluation.text import read_prompts, read_text
from relex_merge.evaluation.text_figures import measure_text
from relex_merge.report.candidates import LAST
from relex_merge.report.final_verdict import decide

if TYPE_CHECKING:
    from relex_merge.evaluation.compared import Compared
    from relex_merge.evaluation.outputs import Output
    from relex_merge.evaluation.request import EvaluationRequest
    from relex_merge.evaluation.tasks import LoadedTask
    from relex_merge.recipe.load import Recipe
    from relex_merge.report.evaluation import Evaluation


def evaluate_recipe(recipe: Recipe, request: EvaluationRequest) -> Evaluation:
    """Measure what the candidates of a recipe can do.

    Args:
        recipe: of this package's method, with plain series.
        request: texts, tasks, candidates.

    Raises:
        RelexError: whatever is wrong, with the remedy.
        NeedsMergekit: only mergekit's own path can run the recipe.
    """
    return _evaluate(lambda scratch: compare_recipe(recipe, request, scratch), request)


def evaluate_outputs(outputs: Sequence[Output], request: EvaluationRequest) -> Evaluation:
    """Measure what finished outputs of one series can do; the verdict is about the first.

    Args:
        outputs: at least one.
        request: texts and tasks.

    Raises:
        RelexError: whatever is wrong, with the remedy.
    """
    return _evaluate(lambda scratch: compare_outputs(outputs, request, scratch), request)


def _evaluate(compare: Callable[[Path], Compared], request: EvaluationRequest) -> Evaluation:
    with (
        one_display(quiet=request.quiet),
        tempfile.TemporaryDirectory(prefix="relex-evaluate-") as folder,
    ):
        # What may be wrong with texts and tasks is said before hours of work, not after.
        check_files(request)
        tasks = loaded_tasks(request)
        scratch = Path(folder)
        return _measured(compare(scratch), tasks, request, scratch)


def check_files(request: EvaluationRequest) -> None:
    """Read the user's texts. Raises RelexError, naming file and line, where they are no texts."""
    if request.text is not None:
        read_text(request.text)
    elif request.prompts is not None:
        read_prompts(request.prompts)


def loaded_tasks(request: EvaluationRequest) -> list[LoadedTask]:
    """Load the tasks that were asked for.

    Raises:
        RelexError: lm-eval or the backend is not installed, or lm-eval knows no such task.
    """
    asked = request.tasks
    if asked is None:
        if request.backend != BackendRequest():
            raise RelexError("--model and --model-args are for tasks; name some with --tasks")
        return []
    request.backend.check()
    with silent_lm_eval():
        return load_tasks(asked.names, include_path=asked.include_path, limit=asked.limit)


def _measured(
    compared: Compared, tasks: Sequence[LoadedTask], request: EvaluationRequest, scratch: Path
) -> Evaluation:
    """Run texts and tasks on all models, and decide."""
    own = compared.candidates[0]
    with fitting_threads(compared.subjects.load(LAST)):
        text = measure_text(compared, request, scratch)
        found = measure_tasks(compared, tasks, text.function, request)
    labels = overall(own, found.reported) if own in found.reported else None
    verdict = decide(compared.geometry, text.function[own], labels)
    about = About(
        compared.subjects.series,
        compared.last_step,
        {
            "recipe": compared.name,
            "method": compared.mark,
            "text": text.results.text,
            "seed": request.sampling.seed,
            "samples": request.sampling.samples,
            **_task_settings(request),
        },
        {name: version(name) for name in ("relex-merge", "torch", "transformers")},
    )
    evaluation = assemble(about, verdict, text.results, found.parts, found.choice)
    return {**evaluation, "datasets": {task.name: dataset_of(task) for task in tasks}}


def _task_settings(request: EvaluationRequest) -> dict[str, object]:
    """Return how tasks were run, in lm-eval's words; nothing where there are none."""
    if request.tasks is None:
        return {}
    settings = request.tasks.settings
    return {
        "model": request.backend.kind,
        "model_args": dict(request.backend.args),
        "limit": request.tasks.limit,
        "num_fewshot": settings.num_fewshot,
        "gen_kwargs": dict(settings.gen_kwargs),
        "repeats": settings.repeats,
        "apply_chat_template": settings.apply_chat_template,
        "fewshot_as_multiturn": settings.fewshot_as_multiturn,
        "system_instruction": settings.system_instruction,
    }
