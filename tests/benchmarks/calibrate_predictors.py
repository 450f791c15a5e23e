"""How good is ``predictor: auto``? On real RLVR runs in miniature, and on runs of known law.

    python -m tests.benchmarks.calibrate_predictors [--cache DIR] [--markdown FILE] [--figure FILE]

Every miniature run (:mod:`tests.benchmarks.miniature`; trained first where the cache lacks it) is
watched for 30 steps and continued to steps 60, 100 and 200. The real checkpoints there give the
true skill of every continuation, and the demo's own evaluation the accuracies, greedy and sampled,
of predictions written with the engine's arithmetic. Rules and thresholds were set on seeds from 100
on; the default seeds, 0 and 1, took no part in it. Processor time: 16 minutes for the runs and 4
for the accuracies, once; 2 for everything else.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from relex_merge.engine import kernels
from relex_merge.trajectory.statistics import SeriesStatistics
from tests.benchmarks.accuracy import Examiner
from tests.benchmarks.automatic import Tried, true_skill, try_out
from tests.benchmarks.miniature import CACHE, OBSERVED, Key, MiniatureRun, keys, load_run, make
from tests.benchmarks.predictors_shown import figure, findings, goals, main_table
from tests.benchmarks.trajectories import LAWS, RATIOS, draw

TARGETS = (60, 100, 200)
LENGTHS = (10, 20, 40)
SYNTHETIC_SEEDS = 2000  # first seed of the synthetic runs, none of them used to set anything


@dataclass(frozen=True)
class Outcome:
    """One run continued to one target.

    tried: what was known beforehand. skill: true skill by
    predictor; accuracy: (greedy, sampled) of "observed", "linear", "auto" and "real".
    """

    key: Key
    target: int
    tried: Tried
    skill: dict[str, float]
    accuracy: dict[str, tuple[float, float]]


def statistics(run: MiniatureRun) -> SeriesStatistics:
    """Gram matrices of everything that was kept of ``run``, in float64."""
    tensors = {
        name: kernels.accumulate(rows, torch.float64, last=OBSERVED - 1)
        for name, rows in run.weights.items()
    }
    return SeriesStatistics(run.steps, tensors)


def outcomes(run: MiniatureRun, cache: Path) -> list[Outcome]:
    """``run`` continued from its first ``OBSERVED`` checkpoints to every target."""
    whole = statistics(run)
    observed = whole.select(np.arange(len(run.steps)) < OBSERVED)
    examiner = Examiner(run, cache)
    found = []
    for target in TARGETS:
        tried = try_out(observed, target)
        models = {
            "observed": examiner.checkpoint(OBSERVED - 1),
            "linear": examiner.predicted(tried.weights["linear"]),
            "auto": examiner.predicted(tried.weights["auto"]),
            "real": examiner.checkpoint(int(np.flatnonzero(run.steps == target)[0])),
        }
        skill = {name: true_skill(whole, W, target) for name, W in tried.weights.items()}
        accuracy = {name: (a.greedy, a.sampled) for name, a in models.items()}
        found.append(Outcome(run.key, target, tried, skill, accuracy))
    return found


def synthetic(family: str, seeds: int) -> list[tuple[Tried, dict[str, float]]]:
    """(what was known, true skill by predictor) of runs of ``family``, each at one ratio."""
    found = []
    for seed in range(seeds):
        T, ratio = LENGTHS[seed % 3], seed // 3 % 4  # the paper's widest ratio needs more
        run = draw(family, T, SYNTHETIC_SEEDS + seed)
        whole = run.statistics
        target = float(whole.steps[T + ratio])
        tried = try_out(whole.select(np.arange(T + len(RATIOS)) < T), target)
        found.append((tried, {n: true_skill(whole, W, target) for n, W in tried.weights.items()}))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cache", type=Path, default=CACHE, help="where runs are kept")
    parser.add_argument("--seeds", default="0,1", help="0 and 1 are for testing, 100 on for tuning")
    parser.add_argument("--synthetic", type=int, default=24, help="synthetic runs per law")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--markdown", type=Path, help="write all tables there")
    parser.add_argument("--figure", type=Path, help="draw skill and accuracy there")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    wanted = keys([int(seed) for seed in options.seeds.split(",")])
    make(wanted, options.cache, options.workers)
    found = [o for key in wanted for o in outcomes(load_run(key, options.cache), options.cache)]
    names = [law.removeprefix("bf16 ") for law in LAWS]
    families = dict.fromkeys(f for name in names for f in (name, f"bf16 {name}"))
    laws = {family: synthetic(family, options.synthetic) for family in families}
    text = "\n\n".join([goals(found), main_table(found), findings(laws)])
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n", encoding="utf-8")
    if options.figure:
        figure(found, options.figure)


if __name__ == "__main__":
    main()
