"""Gram matrices that grow by a row when a checkpoint arrives.

G of T checkpoints holds that of the T − 1 before, so only ⟨δ_T, δ_t⟩ for t ≤ T is new: T·d
multiplications, and a read of the new checkpoint. The earlier deltas are needed too; they come from
:class:`relex_merge.weights.memory.Memory` as far as its budget goes and from the disk beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from relex_merge.engine import kernels
from relex_merge.engine.memory_limits import memory_errors
from relex_merge.engine.plan import ModelPlan, TensorPlan
from relex_merge.engine.threads import compute_pool, single_threaded
from relex_merge.errors import RelexError
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics
from relex_merge.weights.memory import Memory, Numbers

SPAN = 2**18  # numbers of a row that one worker handles at a time


@dataclass(frozen=True)
class _Growth:
    """new: indices of the checkpoints that G does not know yet; old: (T,) of those it knows."""

    plan: ModelPlan
    known: Mapping[str, TensorStatistics]
    new: Sequence[int]
    old: npt.NDArray[np.bool_]
    rows: Sequence[Numbers]


@memory_errors()
def grow(
    plan: ModelPlan, known: SeriesStatistics | None, memory: Memory, workers: int
) -> dict[str, TensorStatistics]:
    """Statistics of every extrapolated tensor of ``plan``, in its order.

    known: of some of the plan's checkpoints, found by their steps; None: of none. Raises RelexError
    naming tensor and checkpoint for NaN or Inf.
    """
    tensors = [tensor for tensor in plan.tensors if tensor.parameters is not None]
    had = np.zeros(0) if known is None else known.steps
    old = np.isin(plan.steps, had)
    memory.keep_only(plan.sources)
    rows = [
        memory.hold(source, [tensor.stored[row] for tensor in tensors])
        for row, source in enumerate(plan.sources)
    ]
    growth = _Growth(plan, known.tensors if known else {}, np.flatnonzero(~old).tolist(), old, rows)
    with kernels.ieee_float32(), single_threaded(), compute_pool(workers, "relex-compute") as pool:
        found = {tensor.name: _tensor(growth, tensor, pool) for tensor in tensors}
    for source in plan.sources:
        source.check_unchanged()
    return found


def _tensor(growth: _Growth, tensor: TensorPlan, pool: ThreadPoolExecutor) -> TensorStatistics:
    """One tensor's statistics; sums over spans in their order, whoever is first."""
    numel, T, new = tensor.out.numel, growth.plan.T, growth.new
    rows = np.zeros((len(new), T))
    norm, moved = 0.0, 0
    for part in pool.map(lambda at: _span(growth, tensor, at), range(0, numel, SPAN)):
        rows += part[0].numpy()
        norm += part[1]
        moved += part[2]
    if not np.isfinite(rows).all():
        broken = next(
            (t for t, row in zip(new, rows, strict=True) if not np.isfinite(row[t])), new[-1]
        )
        label = growth.plan.sources[broken + 1].label
        raise RelexError(f"{label}: {tensor.name} holds NaN or Inf; leave that checkpoint out")
    G = np.zeros((T, T))
    if growth.old.any():
        G[np.ix_(growth.old, growth.old)] = growth.known[tensor.name].gram
    G[:, new] = rows.T
    G[new] = rows
    return TensorStatistics(kernels.mirrored(G), norm, moved, numel)


def _span(growth: _Growth, tensor: TensorPlan, start: int) -> tuple[torch.Tensor, float, int]:
    count = min(SPAN, tensor.out.numel - start)
    rows = [
        numbers.get(name, start, count)
        for numbers, name in zip(growth.rows, tensor.stored, strict=True)
    ]
    dtype = kernels.compute_dtype(rows, tensor.out.numel)
    return kernels.extend(rows, growth.new, dtype, growth.plan.last)
