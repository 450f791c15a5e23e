"""The best approximation of rank r, in the Frobenius norm, of a product or of a matrix.

By Eckart and Young that is the truncated SVD. Of a product L A with R columns in between it follows
from the R × R core of two QR decompositions. Where R is large (75 adapters of rank 32) or the
matrix is full, its leading part is found by randomized block Krylov iteration (Musco and Musco,
arXiv 1504.05477), which touches the matrix by a few products only and is run until the energy that
it finds no longer grows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

LARGEST_CORE = 384  # R up to which the exact SVD of the core is cheap
OVERSAMPLING = 8
MOST_BLOCKS = 8
SETTLED = 1e-7  # growth of the energy found, relative, at which it is all there

Product = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Truncated:
    """B A ≈ the matrix.

    Attributes:
        A: (r, n) float32; A and B are balanced, each takes √σ, and zero beyond the matrix's rank.
        B: (m, r) float32.
        kept: Σ_{k ≤ r} σ_k², the energy of B A.
    """

    A: torch.Tensor
    B: torch.Tensor
    kept: float


def truncate_product(L: torch.Tensor, A: torch.Tensor, rank: int) -> Truncated:
    """The best rank-``rank`` approximation of L A; L (m, R), A (R, n)."""
    m, R = L.shape
    if R <= LARGEST_CORE:
        Q, S = torch.linalg.qr(L.double())
        P, T = torch.linalg.qr(A.double().T)
        U, sigma, Vh = torch.linalg.svd(S @ T.T, full_matrices=False)
        k = min(rank, len(sigma))
        return _balanced(Q @ U[:, :k], sigma[:k], Vh[:k] @ P.T, rank)
    return _krylov(lambda X: L @ (A @ X), lambda Y: A.T @ (L.T @ Y), (m, A.shape[1]), rank, L)


def truncate_matrix(D: torch.Tensor, rank: int) -> Truncated:
    """The best rank-``rank`` approximation of D (m, n)."""
    if min(D.shape) <= LARGEST_CORE:
        U, sigma, Vh = torch.linalg.svd(D.double(), full_matrices=False)
        k = min(rank, len(sigma))
        return _balanced(U[:, :k], sigma[:k], Vh[:k], rank)
    m, n = D.shape
    return _krylov(lambda X: D @ X, lambda Y: D.T @ Y, (m, n), rank, D)


def _krylov(
    times: Product, transposed: Product, shape: tuple[int, int], rank: int, like: torch.Tensor
) -> Truncated:
    """Rayleigh and Ritz on the span of D Ω, (D Dᵀ) D Ω, …; Ω is drawn, always the same."""
    m, n = shape
    width = min(rank + OVERSAMPLING, m, n)
    draw = torch.Generator().manual_seed(0)
    block = times(torch.randn(n, width, generator=draw, dtype=torch.float64).to(like))
    basis, image = like.new_zeros(m, 0), like.new_zeros(n, 0)
    found = -1.0
    for _ in range(MOST_BLOCKS):
        # Twice, since one pass of Gram and Schmidt in float32 leaves some of the basis there.
        for _ in range(2):
            block = torch.linalg.qr(block - basis @ (basis.T @ block))[0]
        basis = torch.cat((basis, block), dim=1)
        last = transposed(block)
        image = torch.cat((image, last), dim=1)  # Dᵀ Q, so that D ≈ Q (Dᵀ Q)ᵀ
        P, S = torch.linalg.qr(image)
        U, sigma, Vh = torch.linalg.svd(S.double().T, full_matrices=False)
        k = min(rank, len(sigma))
        energy = float((sigma[:k] ** 2).sum())
        if energy <= found * (1 + SETTLED) or basis.shape[1] + width > min(m, n):
            break
        found = energy
        block = times(last)
    return _balanced(basis.double() @ U[:, :k], sigma[:k], Vh[:k] @ P.double().T, rank)


def _balanced(U: torch.Tensor, sigma: torch.Tensor, Vh: torch.Tensor, rank: int) -> Truncated:
    root = sigma.sqrt()
    A = U.new_zeros(rank, Vh.shape[1], dtype=torch.float32)
    B = U.new_zeros(U.shape[0], rank, dtype=torch.float32)
    A[: len(sigma)] = root[:, None] * Vh
    B[:, : len(sigma)] = U * root
    return Truncated(A, B, float((sigma**2).sum()))
