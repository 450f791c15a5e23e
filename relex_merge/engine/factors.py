"""The Gram matrix of low-rank deltas from products of their factors.

⟨δ_i, δ_j⟩ = s_i s_j tr((A_j A_iᵀ)(B_iᵀ B_j)) = s_i s_j Σ (A_i A_jᵀ) ∘ (B_iᵀ B_j): two r_i × r_j
matrices, multiplied entry by entry. With the factors of all T checkpoints stacked, these are blocks
of two symmetric matrices, of which only the half on and below the diagonal is formed, some
checkpoints at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch

from relex_merge.trajectory.gram import Array

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
    lower = np.tril(G)
    return np.asarray(lower + np.tril(G, -1).T)


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
