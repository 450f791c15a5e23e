"""What runs on public series cost: bytes, disk, memory, minutes. No weights are needed.

    python -m tests.benchmarks.costs [--disk 1e9] [--checkpoints 20 75 100]

The shapes are those of the three models whose RLVR series are public, in bfloat16; bytes, memory
and passes come from the schedule that a run with default options on 16 GB of free memory follows.
Seconds a byte of the arithmetic are measured here, on generated numbers of one layer, with all
cores; a run takes the longer of that and of reading at ``--disk`` bytes a second.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np
import torch

from relex_merge.engine.engine import Engine, schedule_for
from relex_merge.engine.plan import ModelPlan, TensorPlan
from relex_merge.engine.resources import LARGEST_DEFAULT, Resources
from relex_merge.formatting import size
from relex_merge.trajectory.parameters import Parameters
from relex_merge.weights.source import TensorInfo
from tests.benchmarks.gpu import BLOCK, Generated, Kept

# (hidden, layers, feed-forward, heads × their width, key-value heads × their width, tied head)
MODELS = {
    "Qwen2.5-Math-1.5B": (1536, 28, 8960, 1536, 256, True),
    "Qwen3-4B-Base": (2560, 36, 9728, 4096, 1024, True),
    "Qwen3-8B-Base": (4096, 36, 12_288, 4096, 1024, False),
}
VOCABULARY = 151_936


def shapes(name: str, layers: int | None = None) -> dict[str, tuple[int, ...]]:
    """The matrices of a model; its norms and biases weigh nothing."""
    hidden, depth, feed, queries, keys, tied = MODELS[name]
    found: dict[str, tuple[int, ...]] = {}
    if layers is None:
        found["embed_tokens"] = (VOCABULARY, hidden)
        if not tied:
            found["lm_head"] = (VOCABULARY, hidden)
    for i in range(depth if layers is None else layers):
        found |= {
            f"{i}.q_proj": (queries, hidden),
            f"{i}.k_proj": (keys, hidden),
            f"{i}.v_proj": (keys, hidden),
            f"{i}.o_proj": (hidden, queries),
            f"{i}.gate_proj": (feed, hidden),
            f"{i}.up_proj": (feed, hidden),
            f"{i}.down_proj": (hidden, feed),
        }
    return found


def plan_of(tensors: dict[str, tuple[int, ...]], checkpoints: int) -> ModelPlan:
    """A series of these tensors, whose numbers repeat."""
    infos = {name: TensorInfo(torch.bfloat16, shape) for name, shape in tensors.items()}
    torch.manual_seed(0)
    base, way = torch.randn(BLOCK) * 0.02, torch.randn(BLOCK) * 1e-4
    blocks = [(base + t * way).bfloat16() for t in range(8)]
    sources = tuple(
        Generated(f"step_{t}", infos, blocks[t % len(blocks)]) for t in range(checkpoints + 1)
    )
    tensors_planned = tuple(
        TensorPlan(name, (name,) * (checkpoints + 1), torch.bfloat16, info, (Parameters(1000),))
        for name, info in infos.items()
    )
    return ModelPlan(sources, np.arange(1.0, checkpoints + 1), 1, tensors_planned)


def seconds_per_byte(checkpoints: int, resources: Resources) -> float:
    """Of the engine, on one layer of the smallest model."""
    plan = plan_of(shapes("Qwen2.5-Math-1.5B", layers=1), checkpoints)
    schedule = schedule_for(plan, range(len(plan.tensors)), resources)
    start = time.perf_counter()
    Engine(
        plan,
        schedule,
        Kept(),
        span=resources.span(plan.T),
        device=resources.device,
        workers=resources.workers,
        progress=lambda nbytes: None,
    ).run()
    return (time.perf_counter() - start) / schedule.read_bytes


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--disk", type=float, default=1e9, help="bytes a second")
    parser.add_argument("--checkpoints", type=int, nargs="+", default=[20, 75, 100])
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    resources = Resources(torch.device("cpu"), cores, LARGEST_DEFAULT)
    rates = {T: seconds_per_byte(T, resources) for T in options.checkpoints}
    print(f"| model | checkpoints | read | written | buffers | minutes at {size(options.disk)}/s "
          f"| of arithmetic alone, {cores} cores |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for name in MODELS:
        for T in options.checkpoints:
            plan = plan_of(shapes(name), T)
            schedule = schedule_for(plan, range(len(plan.tensors)), resources)
            arithmetic = schedule.read_bytes * rates[T]
            total = max(schedule.read_bytes / options.disk, arithmetic)
            row = (
                name,
                T,
                size(schedule.read_bytes),
                size(sum(t.out.nbytes for t in plan.tensors)),
                size(schedule.buffers * schedule.buffer_bytes),
                f"{total / 60:.0f}",
                f"{arithmetic / 60:.0f}",
            )
            print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
