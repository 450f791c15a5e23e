"""The trust report of a run, with what it was made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from relex_merge.checkpoints.locate import Snapshot
from relex_merge.formatting import whole
from relex_merge.recipe.names import METHOD
from relex_merge.report import build_report
from relex_merge.trajectory.backtests.results import STAY, Choice
from relex_merge.trajectory.parameters import Predictor
from relex_merge.trajectory.statistics import SeriesStatistics

_PACKAGES = ("relex-merge", "mergekit", "torch", "transformers", "safetensors", "huggingface_hub")


def make_report(
    statistics: SeriesStatistics,
    predictors: Mapping[str, Predictor],
    snapshots: Sequence[Snapshot],
    dtype: str,
    holdout: SeriesStatistics | None = None,
    choice: Choice | None = None,
) -> dict[str, Any]:
    """What goes to relex_report.json.

    snapshots: base first, then the order of the steps; holdout: statistics over the same and later
    checkpoints; choice: how the predictors were found, where the recipe left them open.
    """
    moving = [p for p in predictors.values() if p.predictor != STAY]
    main, _ = Counter(moving or predictors.values()).most_common(1)[0]
    method = {"name": METHOD, **asdict(main)}
    target = method.pop("target_step")
    del method["auto_target"]
    if main.predictor == "linear" and choice is None:
        del method["predictor"], method["scope"]  # the paper's method, described as ever
    base, *checkpoints = snapshots
    report = build_report(
        statistics,
        predictors,
        method=method,
        base={"reference": base.reference, "sha": base.sha},
        checkpoints=[
            {"reference": s.reference, "step": whole(step), "sha": s.sha}
            for s, step in zip(checkpoints, statistics.steps, strict=True)
        ],
        target_step=whole(target),
        dtype=dtype,
        holdout=holdout,
        versions={package: version(package) for package in _PACKAGES},
    )
    return report if choice is None else {**report, "choice": choice.as_json()}
