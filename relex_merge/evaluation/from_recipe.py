"""The models of a recipe: base, observed checkpoints, and candidates composed in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relex_merge.checkpoints.locate import locate
from relex_merge.engine.resources import available
from relex_merge.errors import RelexError
from relex_merge.evaluation.compared import Compared, FunctionalBacktest
from relex_merge.evaluation.live_model import LiveModel
from relex_merge.evaluation.request import SCALES
from relex_merge.evaluation.series_models import Cut, SeriesModels, cuts_at, why_no_cut
from relex_merge.evaluation.shards import as_a_whole
from relex_merge.evaluation.subjects import (
    Subjects,
    of_series,
    on_the_way,
    others,
    predicted,
    standing_still,
)
from relex_merge.evaluation.text_figures import read_items
from relex_merge.evaluation.tokens import first_tokenizer
from relex_merge.pipeline import inspection
from relex_merge.pipeline.automatic import is_open, refuse_to_stop, settle
from relex_merge.pipeline.grams import form_grams
from relex_merge.pipeline.prepare import prepare
from relex_merge.pipeline.progress import progress_bar
from relex_merge.recipe.listed import listed_checkpoints
from relex_merge.recipe.mark import method_mark
from relex_merge.recipe.variant import Variant
from relex_merge.report.candidates import Candidate
from relex_merge.report.final_verdict import Geometry
from relex_merge.trajectory.statistics import SeriesStatistics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relex_merge.checkpoints.locate import Snapshot
    from relex_merge.engine.resources import Resources
    from relex_merge.evaluation.request import EvaluationRequest
    from relex_merge.pipeline.prepare import Prepared
    from relex_merge.recipe.load import Recipe


def compare_recipe(recipe: Recipe, request: EvaluationRequest, scratch: Path) -> Compared:
    """Read the series of a recipe once, so that every candidate can be put into memory.

    Args:
        recipe: of this package's method, with plain series.
        request: which candidates, which other models.
        scratch: a folder for a few deltas.

    Raises:
        RelexError: whatever is wrong with the recipe or with a checkpoint.
        NeedsMergekit: only mergekit's own path can run the recipe.
    """
    ends = Ends.of(recipe, request)
    resources = available(request.merge, request.memory_budget)
    prepared = prepare(recipe, [Variant()], request.merge, request.streams)
    if is_open(prepared.plan):
        prepared = _settled(prepared, resources, request)
    candidates = grid(own_candidate(prepared), request)
    steps = prepared.plan.steps
    targets = [candidate.target_step for candidate in candidates]
    cuts = cuts_at(steps, *targets)
    live = ends.live_base(request, resources, scratch)
    also = others(request, resources.device, scratch)
    tokenizer = first_tokenizer([ends.last, ends.base])
    read_items(request, live.model.config, tokenizer)  # what is wrong with them is said now
    models = SeriesModels(prepared.plan, live, candidates, cuts, scratch)
    with progress_bar("reading checkpoints", quiet=request.quiet, in_bytes=True) as bar:
        seen = models.read(resources, bar)
    fingerprint, mark = prepared.fingerprint(), method_mark(recipe)
    statistics = SeriesStatistics(steps, dict(seen), fingerprint)
    verdict = inspection.of_series(prepared, statistics).report["verdict"]
    sources = {
        **of_series(models, prepared.snapshots, candidates, recipe.to_yaml()),
        **on_the_way(models, steps, request.every),
        **also,
    }
    missing = [why_no_cut(steps, target) for target in dict.fromkeys(targets)]
    return Compared(
        recipe.name,
        mark,
        float(steps[-1]),
        Geometry(verdict["verdict"], verdict["reasons"]),
        candidates,
        Subjects(sources, fingerprint, tokenizer, request, scratch, prepared_dtype(prepared)),
        backtests_of(models, cuts),
        [remark for remark in missing if remark],
    )


@dataclass(frozen=True)
class Ends:
    """Base and last observed checkpoint, on this disk: they are read again and again."""

    base: Snapshot
    last: Snapshot

    @staticmethod
    def of(recipe: Recipe, request: EvaluationRequest) -> Ends:
        """Bring both here. Raises RelexError where one cannot be found."""
        last = [c.reference for c in listed_checkpoints(recipe) if c.observed][-1]
        references = [str(recipe.config.base_model), last]
        cache = request.merge.transformers_cache
        return Ends(*locate(references, cache_dir=cache, stream=False))

    def live_base(
        self, request: EvaluationRequest, resources: Resources, scratch: Path
    ) -> LiveModel:
        """Load the base. Raises RelexError where transformers cannot."""
        trusted = request.merge.trust_remote_code
        folder, label = as_a_whole(self.base, scratch), self.base.reference
        return LiveModel(folder, label, resources.device, trust_remote_code=trusted)


def _settled(prepared: Prepared, resources: Resources, request: EvaluationRequest) -> Prepared:
    """Choose what `auto` leaves open, from one reading of its own."""
    with progress_bar("reading checkpoints", quiet=request.quiet, in_bytes=True) as bar:
        prepared, (choice,) = settle(prepared, form_grams(prepared, resources, bar))
    refuse_to_stop(choice)
    return prepared


def prepared_dtype(prepared: Prepared) -> Any:
    """Return the torch dtype that ``run`` would give most of a model's numbers."""
    import torch

    return getattr(torch, prepared.output_dtype)


def backtests_of(models: SeriesModels, cuts: Sequence[Cut]) -> list[FunctionalBacktest]:
    """Return the functional backtests that the models were read for."""
    return [
        FunctionalBacktest(
            cut.ratio, cut.fitted, predicted(models, cut), standing_still(models, cut)
        )
        for cut in cuts
    ]


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


def own_candidate(prepared: Prepared) -> Candidate:
    """Return what the recipe asks for, in most tensors that move.

    Raises:
        RelexError: the recipe reconstructs instead of extrapolating.
    """
    asked = [t.parameters[0] for t in prepared.plan.tensors if t.parameters]
    moving = [p for p in asked if p.predictor != "stay"] or asked
    if any(p.mode != "extrapolate" for p in moving):
        raise RelexError("evaluate is for mode: extrapolate; inspect tells of a reconstruction")
    first = max(set(moving), key=moving.count)
    return Candidate(first.target_step, first.scale, first.anchor)
