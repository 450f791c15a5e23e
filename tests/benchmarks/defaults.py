"""Why a line in one direction? Accuracy of it, of three directions, and of two points, paired.

    python -m tests.benchmarks.defaults [--cache DIR] [--seeds 61,62,63,64] [--workers 2]

On miniature RLVR runs (:mod:`tests.benchmarks.miniature`; trained first where the cache lacks them)
30 of 200 steps are observed and continued to 60, 100 and 200. Printed for runs of many rollouts a
step and of few: the mean accuracy of each method on held-out problems, and the mean difference from
the line with its 95 % interval over runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from relex_merge.trajectory.gram import Array, two_point_line
from relex_merge.trajectory.parameters import Parameters
from tests.benchmarks.accuracy import Examiner
from tests.benchmarks.miniature import CACHE, OBSERVED, MiniatureRun, load_run, make, plain_keys

TARGETS = (60.0, 100.0, 200.0)
LINE = "line, rank 1"


def methods(run: MiniatureRun, target: float) -> dict[str, Mapping[str, Array]]:
    """Weights w (T,) of each method, by tensor."""
    steps = run.steps[:OBSERVED]
    grams = {}
    for name, rows in run.weights.items():
        deltas = (rows[1 : OBSERVED + 1] - rows[0]).double()
        grams[name] = (deltas @ deltas.T).numpy()
    last = np.zeros(OBSERVED)
    last[-1] = 1.0
    return {
        "last observed": dict.fromkeys(grams, last),
        LINE: {n: Parameters(target).weights(G, steps) for n, G in grams.items()},
        "line, rank 3": {n: Parameters(target, rank=3).weights(G, steps) for n, G in grams.items()},
        "two-point line": dict.fromkeys(grams, two_point_line(steps, target)),
    }


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--seeds", default="61,62,63,64")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    keys = plain_keys([int(seed) for seed in options.seeds.split(",")])
    make(keys, options.cache, options.workers)
    torch.set_num_threads(1)
    found: dict[tuple[str, str], list[float]] = {}
    for key in keys:
        run = load_run(key, options.cache)
        examiner = Examiner(run, options.cache)
        for target in TARGETS:
            for name, W in methods(run, target).items():
                accuracy = examiner.predicted(W).greedy
                found.setdefault((f"{key.rollouts} rollouts", name), []).append(accuracy)
    print(
        "| runs | method | accuracy | difference from the line, points (95 %) |\n|---|---|---|---|"
    )
    for (kind, name), values in found.items():
        # The targets of a run are no independent cases.
        difference = np.subtract(values, found[kind, LINE]).reshape(-1, len(TARGETS)).mean(1) * 100
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        low, high = difference.mean() - 1.96 * error, difference.mean() + 1.96 * error
        paired = "" if name == LINE else f"{difference.mean():+.1f} ({low:+.1f} to {high:+.1f})"
        print(f"| {len(difference)} of {kind} a step | {name} | {np.mean(values):.3f} | {paired} |")


if __name__ == "__main__":
    main()
