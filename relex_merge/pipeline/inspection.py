"""The trust report with what it was made from, ready to be shown or saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from relex_merge.checkpoints.files import GRAM, RECIPE, REPORT
from relex_merge.checkpoints.locate import Snapshot
from relex_merge.engine.plan import NeedsMergekit
from relex_merge.errors import RelexError
from relex_merge.hub.download import Pin, progress_bars
from relex_merge.hub.references import hub_reference
from relex_merge.pipeline.asked import recall, with_parameters
from relex_merge.pipeline.documents import make_report
from relex_merge.pipeline.prepare import Prepared, prepare
from relex_merge.places.download import bring
from relex_merge.places.pin import pin
from relex_merge.recipe.advice import check_output
from relex_merge.recipe.braces import expand_braces
from relex_merge.recipe.load import Recipe, RecipeSource, load_recipe
from relex_merge.recipe.mark import method_mark
from relex_merge.recipe.names import TargetStep
from relex_merge.recipe.variant import Variant
from relex_merge.report.contents import Reference, Report, read_report
from relex_merge.report.evaluated import with_evaluation
from relex_merge.report.sampled import with_sample
from relex_merge.trajectory.backtests.automatic import resolve
from relex_merge.trajectory.statistics import SeriesStatistics

if TYPE_CHECKING:
    from mergekit.options import MergeOptions

    from relex_merge.trajectory.sampling.estimate import Sampled


@dataclass(frozen=True)
class Inspection:
    """The trust report and the Gram matrices behind it.

    Attributes:
        report: as in relex_report.json.
        observed: statistics of the checkpoints that enter the fit.
        everything: statistics of those held out too; the same when there are none.
    """

    report: Report
    observed: SeriesStatistics
    everything: SeriesStatistics


def load_statistics(path: Path) -> SeriesStatistics:
    """Read the Gram matrices of a finished output, or a file of them. Raises RelexError."""
    if path.is_dir():
        check_output(path)
        return SeriesStatistics.load(path / GRAM)
    if not path.is_file():
        raise RelexError(f"{path} does not exist; it was taken for a file like {GRAM}")
    return SeriesStatistics.load(path)


def with_holdout(recipe: Recipe, references: Sequence[str]) -> Recipe:
    """Return the recipe with further checkpoints that are held out of the fit."""
    if not references:
        return recipe
    models = [
        {"model": reference, "parameters": {"role": "holdout"}}
        for text in references
        for reference in expand_braces(text)
    ]
    listed = [*recipe.settings.get("models", ()), *models]
    return load_recipe({**recipe.settings, "models": listed})


def open_series(
    source: RecipeSource,
    target_step: TargetStep | None,
    holdout: Sequence[str],
    options: MergeOptions,
    stream: bool | None,
    *,
    quiet: bool,
) -> Prepared:
    """Open the series of a recipe, with the checkpoints that are held out.

    Args:
        source: the recipe.
        target_step: replaces the recipe's.
        holdout: references of further checkpoints, which are held out.
        options: mergekit's.
        stream: whether weights on the Hub are read in ranges.
        quiet: no progress bar.

    Raises:
        RelexError: the recipe is for another method, or only mergekit's own path can run it.
    """
    recipe = load_recipe(source, target_step=target_step)
    if not recipe.is_relex:
        raise RelexError(f"inspect is for merge_method: relex; {recipe.name} uses another one")
    recipe = with_holdout(recipe, holdout)
    try:
        with progress_bars(not quiet):
            return prepare(recipe, [Variant()], options, stream, holdout=True)
    except NeedsMergekit as reason:
        raise RelexError(
            f"{recipe.name} uses {reason}; inspect reads plain series: a recipe with models: and "
            "a base of the same vocabulary"
        ) from reason


def of_series(
    prepared: Prepared,
    found: SeriesStatistics,
    sampled: Sampled | None = None,
    *,
    alone: bool = False,
) -> Inspection:
    """Return the report of a series.

    Args:
        prepared: the series, those held out included.
        found: its Gram matrices, over all that was prepared.
        sampled: the sample that they were estimated from, if they are estimates.
        alone: whether only the recipe's own predictor is backtested.
    """
    asked = {
        tensor.name: tensor.parameters[0]
        for tensor in prepared.plan.tensors
        if tensor.parameters is not None and tensor.name in found.tensors
    }
    base, *checkpoints = prepared.snapshots
    kept = [s for s, observed in zip(checkpoints, prepared.observed, strict=True) if observed]
    observed = found.select(prepared.observed)
    resolved = resolve(asked, observed)
    report = make_report(
        observed,
        resolved.parameters,
        [base, *kept],
        prepared.stored_dtype,
        holdout=None if prepared.observed.all() else found,
        choice=resolved.choice,
        alone=alone,
    )
    if sampled is not None:
        report = with_sample(report, sampled, resolved.parameters, prepared.observed)
    report = with_parameters(report, prepared.recipe, observed.steps, asked)
    return Inspection(report, observed, found)


def of_output(folder: Path, target_step: TargetStep | None) -> Inspection:
    """Return the report of a finished output, computed again from its Gram matrices.

    Args:
        folder: of the output.
        target_step: replaces the one that the output was made for.

    Raises:
        RelexError: files are missing or cannot be read, or the target does not fit.
    """
    statistics = load_statistics(folder)
    earlier = read_report(folder / REPORT)
    snapshots = [_snapshot(item) for item in (earlier["base"], *earlier["checkpoints"])]
    dtype = earlier["dtype"]
    recipe = load_recipe(folder / RECIPE, target_step=target_step)
    asked = recall(earlier, recipe, statistics.steps, statistics.tensors, target_step)
    resolved = resolve(asked, statistics)
    report = make_report(statistics, resolved.parameters, snapshots, dtype, choice=resolved.choice)
    report["base"], report["checkpoints"] = earlier["base"], earlier["checkpoints"]
    report = with_parameters(report, recipe, statistics.steps, asked)
    if "evaluation" in earlier:
        report = with_evaluation(report, earlier["evaluation"], method_mark(recipe))
    if "sample" in earlier:
        report["sample"] = {**earlier["sample"], "settled": None}
    if target_step is None and "adapter" in earlier:
        report["adapter"] = earlier["adapter"]
    return Inspection(report, statistics, statistics)


def of_output_in_place(address: str, target_step: TargetStep | None) -> Inspection:
    """Do as :func:`of_output` for an output in a place, of which small files are brought here."""
    pinned = pin(address)
    names = [name for name in (REPORT, GRAM, RECIPE) if name in pinned.files]
    missing = {REPORT, GRAM, RECIPE} - set(names)
    if missing:
        raise RelexError(f"{address} is no output of relex-merge: it has no {min(missing)}")
    return of_output(bring(pinned, names), target_step)


def _snapshot(item: Reference) -> Snapshot:
    reference, sha = item["reference"], item["sha"]
    place = hub_reference(reference)
    commit = Pin(place.repo, sha, (), place.folder) if sha else None
    return Snapshot(reference, commit, Path(reference))
