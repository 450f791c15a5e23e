"""The trust report with what it was made from, ready to be shown or saved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relex_merge.checkpoints.files import GRAM, RECIPE, REPORT
from relex_merge.checkpoints.locate import Snapshot
from relex_merge.engine.plan import Settings
from relex_merge.errors import RelexError
from relex_merge.hub.download import Pin
from relex_merge.hub.references import hub_reference
from relex_merge.pipeline.documents import make_report
from relex_merge.pipeline.models_to_model import stored_dtype
from relex_merge.pipeline.prepare import Prepared
from relex_merge.recipe.braces import expand_braces
from relex_merge.recipe.load import Recipe, load_recipe
from relex_merge.trajectory.backtests.automatic import resolve
from relex_merge.trajectory.statistics import SeriesStatistics


@dataclass(frozen=True)
class Inspection:
    """report: as in relex_report.json; observed: statistics of the checkpoints that enter the fit;
    everything: of those held out too, the same when there are none.
    """

    report: dict[str, Any]
    observed: SeriesStatistics
    everything: SeriesStatistics


def load_statistics(path: Path) -> SeriesStatistics:
    """The Gram matrices of a finished output, or of the file itself. Raises RelexError."""
    file = path / GRAM if path.is_dir() else path
    if not file.is_file():
        raise RelexError(f"{path} has no {GRAM}: it is no output of a relex recipe")
    return SeriesStatistics.load(file)


def with_holdout(recipe: Recipe, references: Sequence[str]) -> Recipe:
    """The recipe with further checkpoints that are held out of the fit."""
    if not references:
        return recipe
    models = [
        {"model": reference, "parameters": {"role": "holdout"}}
        for text in references
        for reference in expand_braces(text)
    ]
    listed = [*recipe.settings.get("models", ()), *models]
    return load_recipe({**recipe.settings, "models": listed})


def of_series(prepared: Prepared, found: SeriesStatistics) -> Inspection:
    """The report of a series whose Gram matrices, over all that was prepared, are known."""
    parameters = {
        tensor.name: tensor.parameters[0]
        for tensor in prepared.plan.tensors
        if tensor.parameters is not None and tensor.name in found.tensors
    }
    base, *checkpoints = prepared.snapshots
    kept = [s for s, observed in zip(checkpoints, prepared.observed, strict=True) if observed]
    observed = found.select(prepared.observed)
    holdout = None if prepared.observed.all() else found
    found_out = resolve(parameters, observed)
    report = make_report(
        observed,
        found_out.parameters,
        [base, *kept],
        stored_dtype(prepared.plan),
        holdout=holdout,
        choice=found_out.choice,
    )
    return Inspection(report, observed, found)


def of_output(folder: Path, target_step: float | None) -> Inspection:
    """The report of a finished output, computed again from its Gram matrices and recipe."""
    statistics = load_statistics(folder)
    try:
        earlier = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        base, checkpoints = earlier["base"], earlier["checkpoints"]
    except (OSError, ValueError, KeyError) as error:
        raise RelexError(f"{folder} has no readable {REPORT}") from error
    recipe = load_recipe(folder / RECIPE, target_step=target_step)
    settings = Settings(recipe, [None], statistics.steps)
    parameters = {name: settings.parameters(name, 0.0)[0] for name in statistics.tensors}
    snapshots = [_snapshot(item) for item in (base, *checkpoints)]
    found_out = resolve(parameters, statistics)
    report = make_report(
        statistics,
        found_out.parameters,
        snapshots,
        earlier["dtype"],
        choice=found_out.choice,
    )
    return Inspection(report, statistics, statistics)


def _snapshot(item: dict[str, Any]) -> Snapshot:
    reference, sha = item["reference"], item["sha"]
    place = hub_reference(reference)
    pin = Pin(place.repo, sha, (), place.folder) if sha else None
    return Snapshot(reference, pin, Path(reference))
