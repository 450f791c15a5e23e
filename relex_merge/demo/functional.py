"""What the models do: the functional verdict, and the choice that labels make."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from relex_merge.api import evaluate as evaluate_recipe
from relex_merge.api import extrapolate
from relex_merge.demo.evaluate import Accuracy, evaluate, right_answers
from relex_merge.demo.lora import load_policy
from relex_merge.demo.model import one_thread
from relex_merge.errors import disk_errors
from relex_merge.evaluation.measured_choice import measured_choice
from relex_merge.evaluation.scores import TaskScores
from relex_merge.evaluation.split import reported_part
from relex_merge.report.candidates import LAST, Candidate, Model
from relex_merge.report.evaluated import find

if TYPE_CHECKING:
    from relex_merge.demo.session import Session
    from relex_merge.demo.tasks import Task
    from relex_merge.report.evaluation import Evaluation, StatementEntry

PROMPTS = 128  # of those that are trained on; held-out ones are kept for the accuracies


@dataclass(frozen=True)
class Measured:
    """The measured choice.

    Attributes:
        candidate: what was chosen; None: the last observed checkpoint.
        accuracy: of what was chosen, on the problems that had no part in choosing it.
        reasons: sentences.
        choosing: how many problems chose.
    """

    candidate: Candidate | None
    accuracy: Accuracy
    reasons: Sequence[str]
    choosing: int

    @property
    def name(self) -> str:
        """What was chosen, in words."""
        return LAST if self.candidate is None else self.candidate.name


def ask_functions(recipe: Path, prompts: Sequence[str], task: Task, seed: int) -> Evaluation:
    """Evaluate a recipe on prompts, as a user would; the file lies beside it, where ``run`` looks.

    Args:
        recipe: the recipe.
        prompts: answered by the last observed checkpoint.
        task: what they are from.
        seed: of sampling.

    Raises:
        RelexError: a file cannot be written.
    """
    file = recipe.with_name("prompts.jsonl")
    with disk_errors(file):
        lines = (json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)
        file.write_text("".join(lines), encoding="utf-8")
    with one_thread():
        return evaluate_recipe(
            recipe,
            prompts=file,
            max_new_tokens=task.answer_length + 1,
            seed=seed % 2**32,
            batch_size=len(prompts),
            quiet=True,
            json=recipe.with_name(f"{recipe.stem}.evaluation.json"),
        )


def statement_of_function(evaluation: Evaluation) -> StatementEntry:
    """Return what text alone says."""
    statements = evaluation["verdict"]["statements"]
    return next(s for s in statements if s["evidence"] == "function")


def candidates_of(evaluation: Evaluation) -> list[Candidate]:
    """Return the candidates of an evaluation, the recipe's own target first."""
    return [
        Candidate(entry["target_step"], entry["scale"], entry["anchor"])
        for entry in evaluation["function"]["candidates"]
    ]


def divergence_of(evaluation: Evaluation, candidate: Candidate) -> float | None:
    """Return KL from the last observed checkpoint in nats a token, where it was measured."""
    function = find(evaluation, candidate).function
    return None if function is None else function.kl.value


def write_candidates(
    recipe: Path, candidates: Sequence[Candidate], plain: Path, out: Path
) -> dict[Candidate, Path]:
    """Write the models that start from the last observed checkpoint, in one pass.

    Args:
        recipe: of the plain line.
        candidates: the plain line first, then one for each scale.
        plain: where the plain line lies.
        out: where the others are written.

    Raises:
        RelexError: whatever is wrong.
    """
    line, *scaled = candidates
    content: dict[str, Any] = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    content["parameters"]["anchor"] = "last"
    scales = [candidate.scale for candidate in scaled]
    made = extrapolate(content, out, scale=scales, force=True, figure=False, quiet=True)
    at = {variant.scale: folder for variant, folder in made.variants.items()}
    return {line: plain, **{candidate: at[candidate.scale] for candidate in scaled}}


def choose(
    session: Session,
    tokenizer: Any,
    task: Task,
    problems: Sequence[str],
    folders: Mapping[Candidate, Path],
    evaluation: Evaluation,
) -> Measured:
    """Choose among candidates by greedy answers to a quarter of the problems; measure on the rest.

    Args:
        session: the demo.
        tokenizer: of the task.
        task: what is measured.
        problems: held out from training.
        folders: of the candidates, the plain line first.
        evaluation: functional figures of the candidates.
    """
    last = session.stored(session.settings.observe)
    reported = reported_part(session.settings.task, problems)

    def folder_of(model: Model) -> Path:
        return folders[model] if isinstance(model, Candidate) else last

    def ask(model: Model, _: str, keys: Sequence[str]) -> TaskScores:
        policy = load_policy(session, folder_of(model))
        right = right_answers(policy, tokenizer, task, list(keys))
        return TaskScores(dict(zip(keys, map(float, right), strict=True)))

    known = {candidate: find(evaluation, candidate).function for candidate in folders}
    function = {candidate: f for candidate, f in known.items() if f is not None}
    with one_thread():
        choice, _ = measured_choice(
            list(folders), {session.settings.task: list(problems)}, ask, function
        )
        chosen = load_policy(session, folder_of(choice.chosen or LAST))
        seed = session.settings.stream("evaluation")
        accuracy = evaluate(chosen, tokenizer, task, reported, seed)
    return Measured(choice.chosen, accuracy, choice.reasons, len(problems) - len(reported))
