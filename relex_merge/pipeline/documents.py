"""The three texts beside the weights: expanded recipe, report, model card."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from relex_merge.checkpoints.files import CARD, FIGURE, GRAM, RECIPE, REPORT
from relex_merge.checkpoints.locate import Snapshot
from relex_merge.errors import disk_errors
from relex_merge.formatting import whole
from relex_merge.recipe.load import Recipe
from relex_merge.recipe.names import METHOD
from relex_merge.report import build_report, model_card, save_plot
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
) -> dict[str, Any]:
    """What goes to relex_report.json.

    snapshots: base first, then the order of the steps; holdout: statistics over the same and later
    checkpoints; choice: how the predictor was found, where the recipe left them open.
    """
    moving = [p for p in parameters.values() if p.predictor != STAY]
    main, _ = Counter(moving or parameters.values()).most_common(1)[0]
    method = {"name": METHOD, **asdict(main)}
    target = method.pop("target_step")
    del method["auto_target"]
    if main.predictor == "linear" and choice is None:
        del method["predictor"], method["scope"]  # the paper's method, described as ever
    base, *checkpoints = snapshots
    report = build_report(
        statistics,
        parameters,
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


def write_documents(
    folder: Path,
    recipe: Recipe,
    report: dict[str, Any],
    statistics: SeriesStatistics,
    *,
    base: Snapshot,
    architectures: Sequence[str],
    name: str,
    write_card: bool = True,
    figure: bool = False,
) -> None:
    """Recipe, report, Gram matrices, figure and card into a finished model folder."""
    text = recipe.to_yaml()
    causal = any(a.endswith(("ForCausalLM", "LMHeadModel")) for a in architectures)
    with disk_errors(folder):
        (folder / RECIPE).write_text(text, encoding="utf-8")
        (folder / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        statistics.save(folder / GRAM)
        if figure:
            save_plot(report, statistics, folder / FIGURE)
        if write_card:
            written = model_card.model_card(
                report,
                text,
                name=name,
                license=model_card.base_license(base.folder / CARD),
                pipeline_tag="text-generation" if causal else None,
                figure=FIGURE if figure else None,
            )
            (folder / CARD).write_text(written, encoding="utf-8")
