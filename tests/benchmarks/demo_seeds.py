"""The demo over several seeds: how well RELEX does, with the spread, and how long it takes.

    python -m tests.benchmarks.demo_seeds [--task T] [--seeds 0-4] [--bad] [--lora] [--json F]

Every seed trains its own base model and, for comparison, the whole RLVR run. Hyper-parameters were
fixed on seeds from 100 on; seeds 0-4 are for the published table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

from relex_merge.demo import run_demo


def measure(task: str, seed: int, *, bad: bool, lora: bool) -> dict[str, Any]:
    """One seed: results.json, and wall-clock and processor seconds."""
    with tempfile.TemporaryDirectory() as folder:
        wall, busy = time.perf_counter(), time.process_time()
        result = run_demo(
            Path(folder) / "demo",
            task=task,
            seed=seed,
            bad=bad,
            lora=lora,
            quiet=True,
            echo=lambda _: None,
        )
        return {
            "seed": seed,
            "wall_s": time.perf_counter() - wall,
            "cpu_s": time.process_time() - busy,
            **result.as_dict(),
        }


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: greedy accuracy (sampled in brackets) of each model for each seed, and means."""
    names = [row["name"] for row in found[0]["rows"]]
    head = ["seed", *names, "RELEX / real", "RELEX / observed", "skill", "verdict", "wall", "cpu"]
    lines = [head, ["---"] * len(head)]
    for run in found:
        rows = {row["name"]: row for row in run["rows"]}
        lines.append(
            [
                str(run["seed"]),
                *(f"{rows[n]['greedy']:.3f} ({rows[n]['sampled']:.3f})" for n in names),
                *_ratios(rows),
                f"{run['summary']['backtest_skill']:+.2f}",
                run["verdict"]["verdict"],
                f"{run['wall_s']:.0f} s",
                f"{run['cpu_s']:.0f} s",
            ]
        )
    means = {
        name: {
            kind: mean(row[kind] for run in found for row in run["rows"] if row["name"] == name)
            for kind in ("greedy", "sampled")
        }
        for name in names
    }
    shown = [f"{means[n]['greedy']:.3f} ({means[n]['sampled']:.3f})" for n in names]
    lines.append(["mean", *shown, *_ratios(means), "", "", "", ""])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _ratios(rows: dict[str, dict[str, float]]) -> list[str]:
    """Greedy accuracy of RELEX over that of the real end, and over that of the last observed."""
    greedy = rows["RELEX"]["greedy"]
    real, observed = rows["real RLVR"]["greedy"], rows["last observed"]["greedy"]
    return [f"{greedy / real:.2f}", f"{greedy / observed:.1f}"]


def main() -> None:
    """Run the seeds, print the table, and save everything that was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="addition")
    parser.add_argument("--seeds", default="0-4", help="first-last")
    parser.add_argument("--bad", action="store_true")
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition("-")
    found = []
    for seed in range(int(first), int(last or first) + 1):
        found.append(measure(arguments.task, seed, bad=arguments.bad, lora=arguments.lora))
        print(f"seed {seed}: {found[-1]['wall_s']:.0f} s", flush=True)
    print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
