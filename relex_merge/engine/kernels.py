"""The two loops over the d numbers of a tensor: form G = M Mᵀ, and combine θ₀ + Σ_t w_t δ_t.

``rows`` is always the base first and then the T checkpoints, each flattened to the same n numbers:
either one tensor (T + 1, n) or a sequence of T + 1 vectors (n,), which may differ in dtype. Any
floating dtype, any device. Deltas live only in one chunk of a few megabytes, which stays in
the cache: float32 inside the chunk, float64 across chunks. Small tensors (norms, biases), which
are cheap and where rounding shows most, are float64 throughout. Chunks depend on T and n alone, so
that memory never changes a digit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import torch

from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.statistics import TensorStatistics

Rows: TypeAlias = torch.Tensor | Sequence[torch.Tensor]

BLOCK = 48  # rows; smaller matrix products lose more speed than symmetry saves
LONGEST = 32_768  # numbers
SMALL = 65_536  # numbers; up to here float64 costs nothing that can be measured


def chunk_length(T: int, device: torch.device) -> int:
    """Numbers of each row in a chunk: a (T, n) float32 block of about 4 MB, on a GPU 256 MB.

    On the CPU at most ``LONGEST``: float32 sums of more terms lose digits.
    """
    if device.type == "cpu":
        return min(max(1024, 2**20 // T // 1024 * 1024), LONGEST)
    return max(1024, 2**26 // T // 1024 * 1024)


def compute_dtype(rows: Rows, numel: int) -> torch.dtype:
    """float64 for float64 inputs and for tensors of at most ``SMALL`` numbers, else float32."""
    wide = any(row.dtype == torch.float64 for row in rows)
    return torch.float64 if wide or numel <= SMALL else torch.float32


@contextmanager
def ieee_float32() -> Iterator[None]:
    """No TF32 and no bfloat16 passes inside float32 matrix products."""
    previous = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(previous)


def _chunks(rows: Rows, dtype: torch.dtype) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Yield (columns, θ₀ (n,), D (T, n) deltas) in ``dtype``; both are overwritten by the next."""
    T, n, device = len(rows) - 1, rows[0].numel(), rows[0].device
    length = min(chunk_length(T, device), n)
    deltas = torch.empty((T, length), dtype=dtype, device=device)
    base = torch.empty(length, dtype=dtype, device=device)
    for start in range(0, n, max(length, 1)):
        columns = slice(start, min(start + length, n))
        width = columns.stop - start
        D, b = deltas[:, :width], base[:width]
        b.copy_(rows[0][columns])
        if isinstance(rows, torch.Tensor):
            D.copy_(rows[1:, columns])
        else:
            for t, row in enumerate(rows[1:]):
                D[t].copy_(row[columns])
        D.sub_(b)
        yield columns, b, D


def self_product(D: torch.Tensor) -> torch.Tensor:
    """Return D Dᵀ (T, T) for D (T, n), equal to its own transpose to the last bit.

    A matrix product adds up ⟨δ_i, δ_j⟩ and ⟨δ_j, δ_i⟩ in an order that the BLAS chooses by their
    place in the result, so in float32 the two may differ. What counts is the half on and below the
    diagonal; the other half is its mirror image. Of a tall D only the blocks on and below the
    diagonal are multiplied.
    """
    T = len(D)
    if T < 2 * BLOCK:
        product = D @ D.T
        return product.tril() + product.tril(-1).T
    h = T // 2 // 16 * 16  # whole register tiles
    below = D[h:] @ D[:h].T
    upper = torch.cat((self_product(D[:h]), below.T), dim=1)
    return torch.cat((upper, torch.cat((below, self_product(D[h:])), dim=1)))


def mirrored(G: Array) -> Array:
    """Return G (T, T) with its half below the diagonal mirrored to the half above it."""
    return np.asarray(np.tril(G) + np.tril(G, -1).T)


def accumulate(rows: Rows, dtype: torch.dtype, last: int = -1) -> TensorStatistics:
    """Statistics of ``rows`` (T + 1, n), deltas in ``dtype``, sums in float64.

    last: index (of T) of the last observed checkpoint, for which ``moved`` is counted.
    A NaN or Inf anywhere in a row makes that row of G non-finite; nothing is raised here.
    """
    T, device = len(rows) - 1, rows[0].device
    G = torch.zeros((T, T), dtype=torch.float64, device=device)
    norm = torch.zeros((), dtype=torch.float64, device=device)
    moved = torch.zeros((), dtype=torch.int64, device=device)
    for _, base, D in _chunks(rows, dtype):
        G += self_product(D)
        norm += base @ base
        moved += torch.count_nonzero(D[last])
    return TensorStatistics(G.cpu().numpy(), norm.item(), int(moved.item()), rows[0].numel())


def extend(
    rows: Rows, new: Sequence[int], dtype: torch.dtype, last: int = -1
) -> tuple[torch.Tensor, float, int]:
    """The rows ``new`` (K indices of T) of G of a series that has grown: (K, T) float64 on CPU.

    ‖θ₀‖² and the count for checkpoint ``last`` come with them, as in :func:`accumulate`. T·K·n
    multiplications instead of T²·n.
    """
    T, device = len(rows) - 1, rows[0].device
    G = torch.zeros((len(new), T), dtype=torch.float64, device=device)
    norm = torch.zeros((), dtype=torch.float64, device=device)
    moved = torch.zeros((), dtype=torch.int64, device=device)
    for _, base, D in _chunks(rows, dtype):
        G += D[list(new)] @ D.T
        norm += base @ base
        moved += torch.count_nonzero(D[last])
    return G.cpu(), norm.item(), int(moved.item())


def combine(
    rows: Rows,
    W: torch.Tensor,
    out: Sequence[torch.Tensor],
    dtype: torch.dtype,
    *,
    onto_base: bool = True,
) -> None:
    """Write θ₀ + Σ_t W_kt δ_t into ``out[k]`` (n,) for each row k of W (K, T) float64.

    Computed in ``dtype``, rounded once to the dtype of ``out[k]``. A row of zeros copies the base
    bit for bit. onto_base: False leaves θ₀ out.
    """
    still = [not bool(w.any()) for w in W]
    W = W.to(device=rows[0].device, dtype=dtype)
    for columns, base, D in _chunks(rows, dtype):
        for target, shift, at_rest in zip(out, W @ D, still, strict=True):
            if onto_base:
                target[columns] = rows[0][columns] if at_rest else shift.add_(base)
            else:
                target[columns] = shift
