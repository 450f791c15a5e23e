"""Cost against the number of checkpoints T and against the size d, engine alone.

    python -m tests.benchmarks.scaling [--checkpoints 10 40 160 500] [--hidden 64 128 256]

Time is given per byte read and, as the part that must grow with T, per T²d multiplications. One
checkpoint is made per step and read again under many names (hard links), so that T = 500 needs the
disk of a few.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import yaml

from relex_merge.engine import engine
from relex_merge.pipeline import models_to_model
from relex_merge.recipe.variant import Variant
from tests.benchmarks.make_series import make_series

DISTINCT = 10  # checkpoints that are really made


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoints", type=int, nargs="+", default=[10, 40, 160, 500])
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    print(f"{'T':>5}{'d':>12}{'plan s':>8}{'run s':>8}{'ns/byte':>9}{'GFLOP/s':>9}")
    for hidden in arguments.hidden:
        with tempfile.TemporaryDirectory() as folder:
            series = Path(folder)
            d = make_series(series, checkpoints=DISTINCT, hidden=hidden, layers=4, vocabulary=8000)
            for T in arguments.checkpoints:
                row = run(series, T, d)
                rows.append(row)
                per_byte, flops = row["run"] / row["bytes"], 2 * T * T * d / row["run"]
                print(
                    f"{T:>5}{d:>12,}{row['plan']:>8.2f}{row['run']:>8.2f}"
                    f"{per_byte * 1e9:>9.3f}{flops / 1e9:>9.1f}"
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


def run(series: Path, T: int, d: int) -> dict[str, float]:
    """Plan and run once; seconds of each, and bytes read."""
    from mergekit.options import MergeOptions

    from relex_merge.engine.resources import available
    from relex_merge.pipeline import prepare
    from relex_merge.pipeline.options import RunOptions
    from relex_merge.pipeline.staging import staging
    from relex_merge.pipeline.writing import Job
    from relex_merge.recipe.load import load_recipe

    models = [{"model": link(series, t), "parameters": {"step": t}} for t in range(1, T + 1)]
    settings = {
        "merge_method": "relex",
        "base_model": str(series / "base"),
        "models": models,
        "parameters": {"target_step": 5 * T},
    }
    recipe = load_recipe(yaml.safe_load(yaml.safe_dump(settings)))
    options, resources = MergeOptions(), available(MergeOptions(), None)
    start = time.perf_counter()
    prepared = prepare.prepare(recipe, [Variant()], options)
    everything = range(len(prepared.plan.tensors))
    read = engine.schedule_for(prepared.plan, everything, resources).read_bytes
    planned = time.perf_counter() - start
    start = time.perf_counter()
    with staging(series / f"out-{T}", force=False) as stage:
        models_to_model.write_weights(
            Job(
                prepared=prepared,
                options=RunOptions(merge=options),
                stage=stage,
                folders=[stage.content],
                resources=resources,
                progress=lambda total: lambda nbytes: None,
            )
        )
        stage.publish(force=False)
    seconds = time.perf_counter() - start
    return {"T": T, "d": d, "plan": planned, "run": seconds, "bytes": read}


def link(series: Path, t: int) -> str:
    """A folder of its own for checkpoint t, with the files of one that was really made."""
    made = series / f"step_{(t - 1) % DISTINCT + 1}"
    folder = series / "links" / f"checkpoint-{t}"
    if not folder.is_dir():
        folder.mkdir(parents=True)
        for file in made.iterdir():
            (folder / file.name).hardlink_to(file)
    return str(folder)


if __name__ == "__main__":
    main()
