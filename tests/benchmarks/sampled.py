"""How near the figures of a sample are to those of all numbers, and how often intervals cover them.

    python -m tests.benchmarks.sampled FOLDER [--draws 10] [--share 0.01] [--json FILE]

Three runs in miniature of 10.6 million numbers and 30 checkpoints are written to FOLDER, unless
they are there: a line with noise in float32, the same in bfloat16 with updates near its rounding,
and a run that slows down and drifts. Rows of a matrix differ in how far they move, as in training.
Each is sampled with different seeds, by tensor (disk) and by request (Hub).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mergekit.options import MergeOptions

from relex_merge.engine.resources import available
from relex_merge.engine.sampled import SampleReader, sampled_tensors
from relex_merge.pipeline.grams import form_grams
from relex_merge.pipeline.inspection import of_series
from relex_merge.pipeline.prepare import Prepared, prepare
from relex_merge.recipe.load import load_recipe
from relex_merge.recipe.variant import Variant
from relex_merge.trajectory.sampling.estimate import QUANTILE, Sampled
from relex_merge.trajectory.sampling.plan import SamplePlan, draw_by_request, draw_by_tensor
from tests.support.models import State, cast, make_config, make_state, write_model, write_recipe

STEPS = range(1, 31)
TARGET = 120
SHAPE: dict[str, Any] = {
    "hidden_size": 320,
    "intermediate_size": 896,
    "num_hidden_layers": 6,
    "num_attention_heads": 5,
    "num_key_value_heads": 1,
    "vocab_size": 12288,
}
FIGURES = {"explained_variance": 0.01, "r2": 0.01, "backtest_skill": 0.05}  # and goals
PLANS: dict[str, Callable[..., SamplePlan]] = {
    "by tensor": draw_by_tensor,
    "by request": draw_by_request,
}


@dataclass(frozen=True)
class Run:
    """How a run in miniature moves: scale · (s/T)^law along a line, a walk, and white noise."""

    dtype: torch.dtype
    scale: float
    law: float
    walk: float
    white: float


RUNS = {
    "line, float32": Run(torch.float32, 1e-3, 1.0, 0.05, 0.05),
    "line, bfloat16": Run(torch.bfloat16, 3e-4, 1.0, 0.05, 0.05),
    "slowing, float32": Run(torch.float32, 1e-3, 0.5, 0.1, 0.05),
}


def states(run: Run, base: State) -> Iterator[State]:
    """The checkpoints of a run, one after the other."""
    draw = torch.Generator().manual_seed(1)
    direction = {}
    for name, weight in base.items():
        rows = torch.exp(0.4 * torch.randn(weight.shape[0], generator=draw))
        own = torch.exp(0.3 * torch.randn(1, generator=draw))
        each = rows.reshape(-1, *[1] * (weight.ndim - 1)) * own
        direction[name] = each * torch.randn(weight.shape, generator=draw)
    drift = {name: torch.zeros_like(weight) for name, weight in base.items()}
    for step in STEPS:
        along = (step / len(STEPS)) ** run.law
        moved = {}
        for name, weight in base.items():
            drift[name] += run.walk * torch.randn(weight.shape, generator=draw) / len(STEPS) ** 0.5
            noise = run.white * torch.randn(weight.shape, generator=draw)
            moved[name] = weight + run.scale * (along * direction[name] + drift[name] + noise)
        yield cast(moved, run.dtype)


def written(root: Path, run: Run) -> Path:
    """The recipe of a run, which is written first where it is not there."""
    recipe = root / "recipe.yml"
    if recipe.is_file():
        return recipe
    config = make_config(**SHAPE)
    base = {n: w.to(run.dtype).float() for n, w in make_state(config).items()}
    folders = []
    for step, state in zip(STEPS, states(run, base), strict=True):
        folders.append(write_model(root / f"step_{step}", config, state))
    settings = {
        "merge_method": "relex",
        "base_model": str(write_model(root / "base", config, cast(base, run.dtype))),
        "models": [{"model": str(folder)} for folder in folders],
        "parameters": {"target_step": TARGET},
    }
    return write_recipe(recipe, settings)


def sampled_report(
    prepared: Prepared, draw: Callable[..., SamplePlan], share: float, seed: int
) -> Any:
    """The report of one draw."""
    tensors = sampled_tensors(prepared.plan)
    numels = [tensor.out.numel for tensor in tensors]
    plan = draw([t.name for t in tensors], numels, int(share * sum(numels)), seed=seed)
    found = Sampled(plan, prepared.plan.steps)
    reader = SampleReader(prepared.plan, tensors)
    reader.read(plan.drawn, found, available(MergeOptions(), None), lambda _: None)
    return of_series(prepared, found.statistics(), found).report


def measure(recipe: Path, draws: int, share: float) -> dict[str, Any]:
    """Errors and coverage of one series, by kind of plan and figure."""
    prepared = prepare(load_recipe(recipe), [Variant()], MergeOptions())
    exact = form_grams(prepared, available(MergeOptions(), None), lambda _: lambda _: None)
    whole: Any = of_series(prepared, exact).report
    found: dict[str, Any] = {"verdict": whole["verdict"]["verdict"]}
    for kind, draw in PLANS.items():
        reports = [sampled_report(prepared, draw, share, seed) for seed in range(draws)]
        same = [r["verdict"]["verdict"] == found["verdict"] for r in reports]
        told = [r["sample"]["settled"] for r in reports]
        figures = {}
        for figure, goal in FIGURES.items():
            true = whole["model"][figure]
            off = [abs(r["model"][figure] - true) for r in reports]
            errors = [r["model"]["standard_errors"][figure] for r in reports]
            figures[figure] = {
                "value": true,
                "goal": goal,
                "root_mean_square": float(np.sqrt(np.mean(np.square(off)))),
                "worst": max(off),
                "standard_error": float(np.sqrt(np.mean(np.square(errors)))),
                "covered": float(np.mean(np.less_equal(off, QUANTILE * np.asarray(errors)))),
            }
        found[kind] = {
            "share": reports[0]["sample"]["share"],
            "blocks": reports[0]["sample"]["blocks"],
            "verdicts_told": sum(told),
            "verdicts_wrong": sum(t and not s for s, t in zip(same, told, strict=True)),
            "figures": figures,
        }
    return found


def table(found: dict[str, Any], draws: int) -> str:
    """Everything, for people."""
    lines = []
    for name, series in found.items():
        lines.append(f"{name}: {series['verdict']}")
        for kind in PLANS:
            one = series[kind]
            lines.append(
                f"  {kind}: {one['share']:.2%} in {one['blocks']} blocks; of {draws} verdicts "
                f"{one['verdicts_told']} told, {one['verdicts_wrong']} of them wrong"
            )
            for figure, f in one["figures"].items():
                lines.append(
                    f"    {figure:20} {f['value']:+.3f}  rms error {f['root_mean_square']:.4f}, "
                    f"worst {f['worst']:.4f} (goal {f['goal']}), told ±{f['standard_error']:.4f}, "
                    f"covered {f['covered']:.0%}"
                )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--json", type=Path, help="where to write all figures")
    arguments = parser.parse_args()
    found = {}
    for name, run in RUNS.items():
        recipe = written(arguments.folder.resolve() / name.replace(", ", "-"), run)
        found[name] = measure(recipe, arguments.draws, arguments.share)
    print(table(found, arguments.draws))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
