"""The Gram matrix of low-rank deltas from products of their factors.

⟨δ_i, δ_j⟩ = s_i s_j tr((A_j A_iᵀ)(B_iᵀ B_j)) = s_i s_j Σ (A_i A_jᵀ) ∘ (B_iᵀ B_j): two r_i × r_j
matrices, multiplied entry by entry. With the factors of all T checkpoints stacked, these are blocks
of two symmetric matrices, of which only the half on and below the diagonal is formed, some
checkpoints at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import numpy as np
import torch

from relex_merge.engine.kernels import mirrored
from relex_merge.engine.plan import ModelPlan
from relex_merge.trajectory.gram import Array
from relex_merge.weights.adapter import Adapter, LowRank
from relex_merge.weights.merged import MergedSource

BLOCK = 192  # rows of the stacks that are multiplied at a time
# Multiplications up to which a Gram matrix is formed in float64: a fraction of a second.
EXACT = 2e9


@dataclass(frozen=True)
class Stack:
    """The factors of one weight over a series, the scaling folded into B.

    A: (R, n), B: (m, R), R = Σ r_t; ends: (T + 1,) rows of checkpoint t are ends[t]:ends[t + 1],
    none where the adapter leaves the weight alone. transposed: the weight is stored as δᵀ.
    """

    A: torch.Tensor
    B: torch.Tensor
    ends: tuple[int, ...]
    transposed: bool

    @property
    def numel(self) -> int:
        """Numbers of the delta, m·n."""
        return self.B.shape[0] * self.A.shape[1]

    @property
    def R(self) -> int:  # noqa: N802
        """Ranks of all checkpoints together."""
        return self.ends[-1]

    def to(self, device: torch.device) -> Stack:
        """The same factors on ``device``."""
        return replace(self, A=self.A.to(device), B=self.B.to(device))

    def weighted(self, w: Array) -> tuple[torch.Tensor, torch.Tensor]:
        """(L (m, R), A (R, n)) with Σ_t w_t δ_t = L A."""
        each = np.repeat(np.asarray(w), np.diff(self.ends))
        return self.B * torch.from_numpy(each).to(self.B), self.A


def compute_dtype(m: int, n: int, ranks: Sequence[int]) -> torch.dtype:
    """float64 where that costs a fraction of a second, else float32 (G to about 1e-8)."""
    return torch.float64 if sum(ranks) ** 2 * (m + n) <= EXACT else torch.float32


def gram(stack: Stack) -> Array:
    """G (T, T) float64 of the deltas of one weight."""
    T = len(stack.ends) - 1
    G = np.zeros((T, T))
    for first, last in _blocks(stack.ends):
        rows = slice(stack.ends[first], stack.ends[last])
        seen = stack.ends[last]
        products = stack.A[rows] @ stack.A[:seen].T
        products *= stack.B[:, rows].T @ stack.B[:, :seen]
        G[first:last, :last] = _block_sums(
            products.cpu().numpy(), stack.ends[first : last + 1], stack.ends[: last + 1]
        )
    return mirrored(G)


def _blocks(ends: Sequence[int]) -> list[tuple[int, int]]:
    """Runs [first, last) of checkpoints of about ``BLOCK`` rows each."""
    cuts, T = [0], len(ends) - 1
    for t in range(1, T + 1):
        if t == T or ends[t + 1] - ends[cuts[-1]] > BLOCK:
            cuts.append(t)
    return list(pairwise(cuts))


def _block_sums(products: Array, rows: Sequence[int], columns: Sequence[int]) -> Array:
    """Sums of ``products`` over blocks of rows and columns, in float64; 0 for empty blocks."""
    sums = np.zeros((len(rows) - 1, len(columns) - 1))
    filled = [np.flatnonzero(np.diff(ends)) for ends in (rows, columns)]
    if all(len(blocks) for blocks in filled):
        starts = [
            np.asarray(ends)[k] - ends[0] for ends, k in zip((rows, columns), filled, strict=True)
        ]
        wide = np.add.reduceat(products, starts[1], axis=1, dtype=np.float64)
        sums[np.ix_(*filled)] = np.add.reduceat(wide, starts[0], axis=0)
    return sums


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
        if deltas and tensor.parameters is not None:
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
