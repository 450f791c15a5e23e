"""The factors of a series, weight by weight: which weights have any, and reading them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from itertools import accumulate

import torch

from relex_merge.engine.factors import Stack, compute_dtype
from relex_merge.engine.plan import ModelPlan
from relex_merge.weights.adapter import Adapter, LowRank
from relex_merge.weights.merged import MergedSource

READERS = 8  # adapters read at a time


def adapters_of(plan: ModelPlan) -> tuple[Adapter, ...]:
    """The adapters of a series of nothing but plain LoRA, base apart; else none.

    A series with full checkpoints, or with DoRA, is one of full weights to the engine.
    """
    sources = plan.sources[1:]
    adapters = tuple(s.adapter for s in sources if isinstance(s, MergedSource))
    dora = any(
        isinstance(delta, LowRank) and delta.magnitude
        for adapter in adapters
        for delta in adapter.deltas.values()
    )
    return () if dora or len(adapters) < len(sources) else adapters


def split(plan: ModelPlan, adapters: Sequence[Adapter]) -> tuple[list[int], list[int]]:
    """Indices of the plan's tensors that are adapted: by factors throughout; whole, in some."""
    factored: list[int] = []
    whole: list[int] = []
    for index, tensor in enumerate(plan.tensors):
        name = tensor.stored[0]
        deltas = [a.deltas[name] for a in adapters if name in a.deltas]
        if deltas and tensor.predictors is not None:
            low = all(isinstance(delta, LowRank) for delta in deltas)
            (factored if low else whole).append(index)
    return factored, whole


def factor_bytes(adapters: Sequence[Adapter], name: str) -> int:
    """Bytes of all factors of one weight."""
    found = 0
    for adapter in adapters:
        delta = adapter.deltas.get(name)
        if isinstance(delta, LowRank):
            found += sum(adapter.source.tensors[n].nbytes for n in (delta.a, delta.b))
    return found


def stack_bytes(adapters: Sequence[Adapter], name: str) -> int:
    """Bytes of the stack of one weight in memory."""
    deltas = [d for a in adapters if isinstance(d := a.deltas.get(name), LowRank)]
    some = next(a for a in adapters if name in a.deltas)
    m, n = some.source.tensors[deltas[0].b].shape[0], some.source.tensors[deltas[0].a].shape[1]
    ranks = [delta.rank for delta in deltas]
    return sum(ranks) * (m + n) * compute_dtype(m, n, ranks).itemsize


def read_stack(adapters: Sequence[Adapter], name: str, readers: Executor) -> Stack:
    """The factors of one weight of all adapters, in the dtype their products are formed in."""
    deltas = [delta for a in adapters if isinstance(delta := a.deltas.get(name), LowRank)]
    some = next(a for a in adapters if name in a.deltas)
    n = some.source.tensors[deltas[0].a].shape[1]
    m = some.source.tensors[deltas[0].b].shape[0]
    ranks = [_rank(adapter, name) for adapter in adapters]
    dtype = compute_dtype(m, n, ranks)
    ends = (0, *accumulate(ranks))
    A, B = torch.empty(ends[-1], n, dtype=dtype), torch.empty(m, ends[-1], dtype=dtype)

    def fill(t: int) -> None:
        delta = adapters[t].deltas.get(name)
        if isinstance(delta, LowRank):
            a, b = adapters[t].factors(delta, dtype)
            rows = slice(ends[t], ends[t + 1])
            if delta.transposed != deltas[0].transposed:
                a, b = b.T, a.T
            A[rows] = a
            torch.mul(b, delta.scaling, out=B[:, rows])

    list(readers.map(fill, range(len(adapters))))
    return Stack(A, B, ends, deltas[0].transposed)


def _rank(adapter: Adapter, name: str) -> int:
    delta = adapter.deltas.get(name)
    return delta.rank if isinstance(delta, LowRank) else 0
