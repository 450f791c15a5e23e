"""An evaluation from recipe to verdict: text first, then tasks, then the choice."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relex_merge.engine.resources import available
from relex_merge.errors import RelexError
from relex_merge.evaluation.assemble import About, TextResults, assemble, overall
from relex_merge.evaluation.choice import Choice, choose_by_function
from relex_merge.evaluation.divergence import divergence, reference
from relex_merge.evaluation.estimates import skill
from relex_merge.evaluation.harness import measure
from relex_merge.evaluation.live_model import LiveModel
from relex_merge.evaluation.measured_choice import measured_choice, report
from relex_merge.evaluation.request import SCALES
from relex_merge.evaluation.responses import describe
from relex_merge.evaluation.sampling import end_tokens, sample_responses
from relex_merge.evaluation.series_models import SeriesModels, cuts_at
from relex_merge.evaluation.store import Store
from relex_merge.evaluation.subjects import subjects_of
from relex_merge.evaluation.tasks import dataset_of, load_tasks
from relex_merge.evaluation.text import read_prompts, read_text
from relex_merge.evaluation.tokens import load_tokenizer, longest, start_items, tokenise
from relex_merge.pipeline.automatic import is_open, refuse_to_stop, settle
from relex_merge.pipeline.grams import form_grams
from relex_merge.pipeline.inspection import of_series
from relex_merge.pipeline.prepare import prepare
from relex_merge.pipeline.progress import progress_bar
from relex_merge.recipe.mark import method_mark
from relex_merge.recipe.variant import Variant
from relex_merge.report.candidates import BASE, LAST, Candidate, Model
from relex_merge.report.estimate import Estimate
from relex_merge.report.final_verdict import Geometry, decide
from relex_merge.report.functional import Backtest, Function, skill_at
from relex_merge.trajectory.statistics import SeriesStatistics

if TYPE_CHECKING:
    from relex_merge.evaluation.request import EvaluationRequest
    from relex_merge.evaluation.scores import TaskScores
    from relex_merge.evaluation.subjects import Subjects
    from relex_merge.evaluation.tokens import Item
    from relex_merge.pipeline.prepare import Prepared
    from relex_merge.recipe.load import Recipe
    from relex_merge.report.evaluation import DatasetEntry, Evaluation, Split

UNPROMPTED = 64  # samples from the model's own start


def evaluate_recipe(recipe: Recipe, request: EvaluationRequest) -> Evaluation:
    """Measure what the candidates of a recipe can do.

    Args:
        recipe: of this package's method, with plain series.
        request: texts, tasks, candidates.

    Raises:
        RelexError: whatever is wrong, with the remedy.
        NeedsMergekit: only mergekit's own path can run the recipe.
    """
    with tempfile.TemporaryDirectory(prefix="relex-evaluate-") as scratch:
        return _Evaluating(recipe, request, Path(scratch)).run()


def grid(own: Candidate, request: EvaluationRequest) -> list[Candidate]:
    """List the candidates: scale 1 at the recipe's own target first, each once.

    Args:
        own: the recipe's target, scale and anchor.
        request: targets, scales and anchors that were asked for.
    """
    plain = replace(own, scale=1.0)
    found = [plain, own]
    for target in request.targets or (own.target_step,):
        if not request.anchors:
            found.append(Candidate(target))
        for anchor in request.anchors or ("last",):
            found += [Candidate(target, scale, anchor) for scale in request.scales or SCALES]
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class _Text:
    """What text showed: figures for the file, and for the rule of each candidate."""

    results: TextResults
    function: Mapping[Candidate, Function]


class _Evaluating:
    """One evaluation, read from top to bottom in :meth:`run`."""

    def __init__(self, recipe: Recipe, request: EvaluationRequest, scratch: Path) -> None:
        self._recipe = recipe
        self._request = request
        self._scratch = scratch
        self._datasets: dict[str, DatasetEntry] = {}

    def run(self) -> Evaluation:
        """Read the series, run texts and tasks, decide."""
        request = self._request
        resources = available(request.merge, request.memory_budget)
        prepared = prepare(self._recipe, [Variant()], request.merge, request.stream)
        with progress_bar("reading checkpoints", quiet=request.quiet, in_bytes=True) as bar:
            if is_open(prepared.plan):
                prepared, (choice,) = settle(prepared, form_grams(prepared, resources, bar))
                refuse_to_stop(choice)
            own = _own(prepared)
            candidates = grid(own, request)
            last = float(prepared.plan.steps[-1])
            cuts = cuts_at(prepared.plan.steps, candidates[0].target_step)
            live = LiveModel(
                prepared.snapshots[0].folder,
                prepared.snapshots[0].reference,
                resources.device,
                trust_remote_code=request.merge.trust_remote_code,
            )
            models = SeriesModels(prepared.plan, live, candidates, cuts, self._scratch)
            seen = models.read(resources, bar)
        statistics = SeriesStatistics(prepared.plan.steps, dict(seen), prepared.fingerprint())
        geometry = of_series(prepared, statistics).report["verdict"]
        subjects = subjects_of(
            prepared, models, live, candidates, self._tokenizer(prepared), request
        )
        text = self._text(subjects, models, live, candidates, cuts, last)
        parts, choice_made = self._tasks(subjects, candidates, text.function)
        reported = parts.get("reported", {})
        labels = overall(candidates[0], reported) if candidates[0] in reported else None
        verdict = decide(
            Geometry(geometry["verdict"], geometry["reasons"]),
            text.function[candidates[0]],
            labels,
        )
        about = About(
            prepared.fingerprint(),
            last,
            {
                "recipe": self._recipe.name,
                "method": method_mark(self._recipe),
                "text": text.results.text,
                "seed": request.sampling.seed,
            },
            {name: version(name) for name in ("relex-merge", "torch", "transformers")},
        )
        found = assemble(about, verdict, text.results, parts, choice_made)
        return {**found, "datasets": self._datasets}

    def _tokenizer(self, prepared: Prepared) -> Any:
        """Return the last checkpoint's tokenizer, else the base's."""
        last, base = prepared.snapshots[-1], prepared.snapshots[0]
        try:
            return load_tokenizer(last.folder, name=last.reference)
        except RelexError:
            return load_tokenizer(base.folder, name=base.reference)

    # Text.

    def _text(
        self,
        subjects: Subjects,
        models: SeriesModels,
        live: LiveModel,
        candidates: Sequence[Candidate],
        cuts: Sequence[Any],
        last: float,
    ) -> _Text:
        request = self._request
        model = subjects.load[LAST]()
        prompts, items, where = self._items(model, subjects.tokenizer)
        others: dict[str, Estimate] = {}
        responses: dict[Model, Any] = {}
        ends = end_tokens(model, subjects.tokenizer)
        if request.text is None:
            responses[LAST] = describe(items, ends)
        total = 1 + 2 * len(cuts) + len(subjects.load)
        with (
            progress_bar("comparing models", quiet=request.quiet, delay=2) as start,
            reference(
                model, items, name=LAST, batch_size=request.batch_size, scratch=self._scratch
            ) as known,
        ):
            advance = start(total)
            backtests = []
            for cut in cuts:
                models.put_backtest(cut)
                name = f"the backtest at {cut.ratio:.3g}×"
                predicted = divergence(known, live.model, name=name)
                models.put_row(cut.fitted)
                still = divergence(known, live.model, name=f"checkpoint {cut.fitted}")
                backtests.append(Backtest(cut.ratio, skill(predicted, still)))
                advance(2)
            kl: dict[Candidate, Estimate] = {}
            for subject, load in subjects.load.items():
                if subject == LAST:
                    continue
                name = subject if isinstance(subject, str) else subject.name
                found = load()
                estimate = divergence(known, found, name=name).mean()
                if isinstance(subject, Candidate):
                    kl[subject] = estimate
                else:
                    others[subject] = estimate
                if request.describe and request.text is None and subject != BASE:
                    answers = sample_responses(
                        found, subjects.tokenizer, prompts, request.sampling, name=name
                    )
                    responses[subject] = describe(answers, ends)
                advance()
            tokens = known.tokens
        results = TextResults(
            where, tokens, len({i.cluster for i in items}), backtests, kl, others, responses
        )
        function = {
            c: Function(kl[c], c.target_step / last, skill_at(backtests, c.target_step / last))
            for c in candidates
        }
        return _Text(results, function)

    def _items(self, model: Any, tokenizer: Any) -> tuple[list[Item], list[Item], str]:
        """Return prompts, items with responses, and where they came from in words."""
        request = self._request
        limit = longest(model, tokenizer)
        if request.text is not None:
            items = tokenise(read_text(request.text), tokenizer, limit=limit)
            return items, items, f"text of {request.text.name}"
        if request.prompts is not None:
            prompts = tokenise(read_prompts(request.prompts), tokenizer, limit=limit)
            where = f"responses of the last observed checkpoint to {request.prompts.name}"
        else:
            prompts = start_items(tokenizer, UNPROMPTED)
            where = (
                "samples of the last observed checkpoint from its own start: the weakest choice, "
                "give --prompts"
            )
        items = sample_responses(model, tokenizer, prompts, request.sampling, name=LAST)
        return prompts, items, where

    # Tasks.

    def _tasks(
        self,
        subjects: Subjects,
        candidates: Sequence[Candidate],
        function: Mapping[Candidate, Function],
    ) -> tuple[dict[Split, Mapping[Model, Mapping[str, TaskScores]]], Choice]:
        asked = self._request.tasks
        if asked is None:
            return {}, choose_by_function(candidates[0], function)
        loaded = load_tasks(asked.names, include_path=asked.include_path, limit=asked.limit)
        tasks = {task.name: task for task in loaded}
        self._datasets = {task.name: dataset_of(task) for task in loaded}
        documents = {task.name: task.documents for task in loaded}
        store = Store(self._request.store)

        def ask(model: Model, task: str, keys: Sequence[str]) -> TaskScores:
            subject = subjects.for_lm_eval(model)
            return measure(store, subject, tasks[task], keys, asked.settings)

        choice, race = measured_choice(candidates, documents, ask, function)
        shown: list[Model] = [LAST, BASE, candidates[0]]
        if choice.chosen is not None:
            shown.append(choice.chosen)
        shown += [m for m in subjects.load if isinstance(m, str) and m not in shown]
        reported = report(list(dict.fromkeys(shown)), documents, ask)
        return {"choosing": race.scores, "reported": reported}, choice


def _own(prepared: Prepared) -> Candidate:
    """Return what the recipe asks for, in most tensors that move."""
    asked = [t.parameters[0] for t in prepared.plan.tensors if t.parameters]
    moving = [p for p in asked if p.predictor != "stay"] or asked
    if any(p.mode != "extrapolate" for p in moving):
        raise RelexError("evaluate is for mode: extrapolate; inspect tells of a reconstruction")
    first = max(set(moving), key=moving.count)
    return Candidate(first.target_step, first.scale, first.anchor)
