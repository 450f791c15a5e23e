"""Qwen3-8B-shaped tensors × 32 checkpoints through the engine on a GPU, from a source without disk.

    python -m tests.benchmarks.gpu [--budget-gib 16] [--checkpoints 32] [--layers 2]

Prints bytes/s through the engine, the rate of plain copies from pinned memory to the device, their
quotient (goal: at least 0.8), and the largest difference between CPU and GPU on the small tensors.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
import torch

from relex_merge.engine.engine import Engine
from relex_merge.engine.plan import ModelPlan, TensorPlan
from relex_merge.engine.resources import Resources
from relex_merge.engine.schedule import make_schedule
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.statistics import TensorStatistics
from relex_merge.weights.source import Read, Source, TensorInfo

BLOCK = 2**22  # numbers; what a row is made of, again and again
HIDDEN, FEED, KV, VOCABULARY = 4096, 12_288, 1024, 151_936


class Generated(Source):
    """bf16 numbers on a noisy line from the base, repeated every ``BLOCK``."""

    def __init__(self, label: str, tensors: dict[str, TensorInfo], block: torch.Tensor) -> None:
        self.label = label
        self.tensors = tensors
        self._bytes = block.view(torch.uint8).numpy()
        self.parallel_reads = 12

    def read(self, reads: Sequence[Read]) -> None:
        for wish in reads:
            done = 0
            while done < len(wish.into):
                at = (wish.start + done) % len(self._bytes)
                part = self._bytes[at : at + len(wish.into) - done]
                wish.into[done : done + len(part)] = part.data
                done += len(part)


class Kept:
    """Keeps the first bytes of every tensor, to compare devices."""

    def __init__(self) -> None:
        self.heads: dict[int, bytes] = {}

    def write(self, target: int, tensor: int, start: int, data: memoryview) -> None:
        if start == 0:
            self.heads[tensor] = bytes(data[: 2**20])

    def finished(self, tensor: int, statistics: TensorStatistics | None) -> None:
        pass


def model(checkpoints: int, layers: int) -> ModelPlan:
    """The plan of an embedding and ``layers`` layers."""
    shapes = {"embed_tokens": (VOCABULARY, HIDDEN), "norm": (HIDDEN,)}
    for i in range(layers):
        shapes |= {
            f"{i}.q_proj": (HIDDEN, HIDDEN),
            f"{i}.k_proj": (KV, HIDDEN),
            f"{i}.gate_proj": (FEED, HIDDEN),
            f"{i}.down_proj": (HIDDEN, FEED),
        }
    infos = {name: TensorInfo(torch.bfloat16, shape) for name, shape in shapes.items()}
    torch.manual_seed(0)
    base, way = torch.randn(BLOCK) * 0.02, torch.randn(BLOCK) * 1e-4
    sources = [
        Generated(f"step_{t}", infos, (base + t * way + torch.randn(BLOCK) * 1e-4).bfloat16())
        for t in range(checkpoints + 1)
    ]
    tensors = [
        TensorPlan(name, (name,) * (checkpoints + 1), torch.bfloat16, info, (Parameters(500),))
        for name, info in infos.items()
    ]
    return ModelPlan(tuple(sources), np.arange(1.0, checkpoints + 1), 1, tuple(tensors))


def run(plan: ModelPlan, resources: Resources, tensors: Sequence[int]) -> tuple[float, int, Kept]:
    """Seconds, bytes read, and what was kept."""
    span, kept = resources.span(plan.T), Kept()
    schedule = make_schedule(
        plan, tensors, resources.budget, span=span,
        piece_bytes=resources.piece_bytes(streamed=False), ahead=resources.ahead,
    )  # fmt: skip
    start = time.perf_counter()
    Engine(
        plan, schedule, kept, span=span, device=resources.device, workers=resources.workers,
        progress=lambda nbytes: None,
    ).run()  # fmt: skip
    return time.perf_counter() - start, schedule.read_bytes, kept


def copy_rate(device: torch.device) -> float:
    """Bytes/s of host-to-device copies from pinned memory."""
    pinned = torch.empty(2**30, dtype=torch.uint8, pin_memory=True)
    target = torch.empty_like(pinned, device=device)
    target.copy_(pinned)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(8):
        target.copy_(pinned, non_blocking=True)
    torch.cuda.synchronize()
    return 8 * 2**30 / (time.perf_counter() - start)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget-gib", type=float, default=16)
    parser.add_argument("--checkpoints", type=int, default=32)
    parser.add_argument("--layers", type=int, default=2)
    arguments = parser.parse_args()
    cuda = torch.device("cuda")
    plan = model(arguments.checkpoints, arguments.layers)
    budget = int(arguments.budget_gib * 2**30)
    copies = copy_rate(cuda)
    torch.cuda.reset_peak_memory_stats()
    seconds, read, on_gpu = run(plan, Resources(cuda, 2, budget), range(len(plan.tensors)))
    print(f"engine {read / seconds / 1e9:.1f} GB/s, copies {copies / 1e9:.1f} GB/s, "
          f"quotient {read / seconds / copies:.2f}")  # fmt: skip
    print(f"peak device memory {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")
    small = [1, 3]
    _, _, on_cpu = run(plan, Resources(torch.device("cpu"), 8, 2**32), small)
    for index in small:
        a, b = (
            torch.frombuffer(bytearray(kept.heads[index]), dtype=torch.bfloat16).float()
            for kept in (on_gpu, on_cpu)
        )
        n = min(len(a), len(b))
        gap = ((a[:n] - b[:n]).norm() / b[:n].norm()).item()
        print(f"{plan.tensors[index].name}: CPU and GPU differ by {gap:.1e} of the norm (bf16)")


if __name__ == "__main__":
    main()
