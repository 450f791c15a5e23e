"""Seconds that the trust report and ``predictor: auto`` take, from G alone.

    python -m tests.benchmarks.report [--checkpoints 75] [--layers 28]

The default is the 1.5B series: 339 tensors, 75 checkpoints, target 13.3 times the last step. The
second of two runs counts; the first one also imports.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from relex_merge.trajectory.backtests.automatic import choose
from tests.support.report_cases import make, report_of

MODULES = (
    *(f"self_attn.{x}_proj.weight" for x in "qkvo"),
    *(f"self_attn.{x}_proj.bias" for x in "qkv"),
    *(f"mlp.{x}_proj.weight" for x in ("gate", "up", "down")),
    "input_layernorm.weight",
    "post_attention_layernorm.weight",
)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoints", type=int, default=75)
    parser.add_argument("--layers", type=int, default=28)
    arguments = parser.parse_args()
    T = arguments.checkpoints
    layers = (f"model.layers.{i}.{m}" for i in range(arguments.layers) for m in MODULES)
    names = ("model.embed_tokens.weight", *layers, "model.norm.weight", "lm_head.weight")
    statistics = make(np.arange(1.0, T + 1), names=names, law=0.8, walk=0.2, white=0.1).statistics()
    target = 1000 / 75 * T

    def report() -> None:
        report_of(statistics, target)

    def auto() -> None:
        choose(statistics, target, scope="module")

    print(f"{len(names)} tensors, {T} checkpoints")
    for name, run in (("report", report), ("auto", auto)):
        print(f"{name}: {_seconds(run):.2f} s")


def _seconds(run: Callable[[], None]) -> float:
    run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
