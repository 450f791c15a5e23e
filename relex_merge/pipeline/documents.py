"""The trust report of a run, with what it was made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from relex_merge.checkpoints.locate import Snapshot
from relex_merge.formatting import whole
from relex_merge.places.pin import PlacePin
from relex_merge.recipe.names import METHOD
from relex_merge.report import build_report
from relex_merge.report.contents import Method, Reference, Report
from relex_merge.trajectory.backtests.results import STAY, Choice
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.statistics import SeriesStatistics

_PACKAGES = ("relex-merge", "mergekit", "torch", "transformers", "safetensors", "huggingface_hub")


def make_report(
    statistics: SeriesStatistics,
    parameters: Mapping[str, Parameters],
    snapshots: Sequence[Snapshot],
    dtype: str,
    holdout: SeriesStatistics | None = None,
    choice: Choice | None = None,
    *,
    alone: bool = False,
) -> Report:
    """Make the content of relex_report.json.

    Args:
        statistics: of the observed checkpoints.
        parameters: tensor → its own.
        snapshots: base first, then the order of the steps.
        dtype: of the checkpoints' files ("bfloat16").
        holdout: statistics over the same and later checkpoints.
        choice: how the predictors were found, where the recipe left them open.
        alone: whether only the recipe's own predictor is backtested.
    """
    moving = [p for p in parameters.values() if p.predictor != STAY]
    main, _ = Counter(moving or parameters.values()).most_common(1)[0]
    method: Method = {
        "name": METHOD,
        "rank": main.rank,
        "degree": main.degree,
        "window": main.window,
        "mode": main.mode,
    }
    if main.predictor != "linear" or choice is not None:  # not just the paper's own
        method |= {"predictor": main.predictor, "scope": main.scope}
    if main.anchor != "line" or main.scale != 1:
        method |= {"anchor": main.anchor, "scale": main.scale}
    base, *checkpoints = snapshots
    report = build_report(
        statistics,
        parameters,
        {
            "method": method,
            "base": _reference(base),
            "checkpoints": [
                {**_reference(s), "step": whole(step)}
                for s, step in zip(checkpoints, statistics.steps, strict=True)
            ],
            "versions": {package: version(package) for package in _PACKAGES},
        },
        target_step=whole(main.target_step),
        dtype=dtype,
        holdout=holdout,
        alone=alone,
    )
    if choice is not None:
        report["choice"] = choice.as_json()
    return report


def _reference(snapshot: Snapshot) -> Reference:
    """Return what a report says of where a model was read."""
    found: Reference = {"reference": snapshot.reference, "sha": snapshot.sha}
    if isinstance(snapshot.pin, PlacePin):
        found["state"] = snapshot.pin.digest
    return found
