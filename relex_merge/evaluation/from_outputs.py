"""The models of finished outputs: candidates as they lie on the disk, and their series."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from relex_merge.checkpoints.locate import Snapshot, locate
from relex_merge.engine.plan import NeedsMergekit
from relex_merge.engine.resources import available
from relex_merge.errors import RelexError
from relex_merge.evaluation.compared import Compared, FunctionalBacktest
from relex_merge.evaluation.from_recipe import Ends, backtests_of
from relex_merge.evaluation.series_models import SeriesModels, cuts_at, why_no_cut
from relex_merge.evaluation.subjects import (
    Source,
    Subjects,
    from_snapshot,
    of_series,
    on_the_way,
    others,
    state_of,
)
from relex_merge.evaluation.tokens import first_tokenizer
from relex_merge.pipeline.prepare import prepare
from relex_merge.pipeline.progress import progress_bar
from relex_merge.recipe.listed import listed_checkpoints
from relex_merge.recipe.mark import method_mark
from relex_merge.recipe.variant import Variant
from relex_merge.report.candidates import BASE, LAST, Model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relex_merge.engine.resources import Resources
    from relex_merge.evaluation.outputs import Output
    from relex_merge.evaluation.request import EvaluationRequest
    from relex_merge.recipe.load import Recipe


@dataclass(frozen=True)
class _Series:
    """What is left of the series.

    sources: of its models. places: where its tokenizer may be, the best first. remarks: sentences
    on what is not there.
    """

    sources: dict[Model, Source]
    places: Sequence[Snapshot]
    backtests: Sequence[FunctionalBacktest] = ()
    remarks: Sequence[str] = ()


def compare_outputs(
    outputs: Sequence[Output], request: EvaluationRequest, scratch: Path
) -> Compared:
    """Take finished outputs as candidates, and base and checkpoints from the recipe in the first.

    Args:
        outputs: of one series, at least one.
        request: which other models.
        scratch: a folder for a few deltas.

    Raises:
        RelexError: the last observed checkpoint cannot be had, or an output is not to be read.
    """
    if request.targets or request.scales or request.anchors:
        raise RelexError(
            "--target-step, --scale and --anchor are for the candidates of a recipe; finished "
            "outputs are what they are"
        )
    resources = available(request.merge, request.memory_budget)
    first = outputs[0]
    also = others(request, resources.device, scratch)
    series = _series(outputs, request, resources, scratch)
    found: dict[Model, Source] = {}
    snapshots = [Snapshot(str(output.folder), None, output.folder) for output in outputs]
    for output, snapshot in zip(outputs, snapshots, strict=True):
        key = ["output", state_of(output.folder)]
        found[output.candidate] = from_snapshot(
            snapshot, request, resources.device, scratch, key=key
        )
    sources = {**series.sources, **found, **also}
    tokenizer = first_tokenizer([*series.places, *snapshots])
    marks = sorted({method_mark(output.recipe) for output in outputs})
    dtype = getattr(torch, first.report.get("dtype", "float32"), torch.float32)
    return Compared(
        ", ".join(str(output.folder) for output in outputs),
        marks[0] if len(marks) == 1 else hashlib.sha256("".join(marks).encode()).hexdigest(),
        float(first.steps[-1]),
        first.geometry,
        [output.candidate for output in outputs],
        Subjects(sources, first.series, tokenizer, request, scratch, dtype),
        series.backtests,
        series.remarks,
        shown=list(found),
    )


def _series(
    outputs: Sequence[Output], request: EvaluationRequest, resources: Resources, scratch: Path
) -> _Series:
    """Return the whole series where it can be read, else the last observed checkpoint alone."""
    try:
        return _whole(outputs, request, resources, scratch)
    except (RelexError, NeedsMergekit) as reason:
        remark = (
            "No functional backtest: the series that the outputs were made from cannot be read "
            f"({reason})."
        )
        return _last_alone(outputs[0].recipe, request, resources, remark, scratch)


def _whole(
    outputs: Sequence[Output], request: EvaluationRequest, resources: Resources, scratch: Path
) -> _Series:
    recipe, targets = outputs[0].recipe, [output.candidate.target_step for output in outputs]
    ends = Ends.of(recipe, request)
    prepared = prepare(recipe, [Variant()], request.merge, request.streams)
    steps = prepared.plan.steps
    cuts = cuts_at(steps, *targets)
    live = ends.live_base(request, resources, scratch)
    models = SeriesModels(prepared.plan, live, [], cuts, scratch)
    if cuts:
        with progress_bar("reading checkpoints", quiet=request.quiet, in_bytes=True) as bar:
            models.read(resources, bar)
    remarks = [why_no_cut(steps, target) for target in dict.fromkeys(targets)]
    if prepared.fingerprint() != outputs[0].series:
        remarks.append(
            "The files of the series have changed since the outputs were made; the last observed "
            "checkpoint and the backtests are of what is there now."
        )
    sources = {
        **of_series(models, prepared.snapshots, [], ""),
        **on_the_way(models, steps, request.every),
    }
    told = [remark for remark in remarks if remark]
    return _Series(sources, (ends.last, ends.base), backtests_of(models, cuts), told)


def _last_alone(
    recipe: Recipe, request: EvaluationRequest, resources: Resources, remark: str, scratch: Path
) -> _Series:
    """Return the last observed checkpoint, which divergences are from, and the base if it is there.

    Raises:
        RelexError: the last observed checkpoint cannot be had.
    """
    if request.every is not None:
        raise RelexError(f"--every needs the series of the outputs: {remark}")
    reference = [c.reference for c in listed_checkpoints(recipe) if c.observed][-1]
    cache = request.merge.transformers_cache
    try:
        (last,) = locate([reference], cache_dir=cache, stream=False)
    except RelexError as error:
        raise RelexError(
            f"the last observed checkpoint {reference} is needed, since candidates are compared "
            f"with it: {error}"
        ) from error
    sources: dict[Model, Source] = {LAST: from_snapshot(last, request, resources.device, scratch)}
    places = [last]
    try:
        (base,) = locate([str(recipe.config.base_model)], cache_dir=cache, stream=False)
    except RelexError:
        remark += " The base is not there either."
    else:
        sources = {BASE: from_snapshot(base, request, resources.device, scratch), **sources}
        places.append(base)
    return _Series(sources, places, remarks=[remark])
