"""Eigen-decompositions of many small Gram matrices at once.

A model has hundreds of tensors, each with a G of T × T, and the report decomposes every one of them
at a dozen cut-offs. Batched LAPACK on one thread does that in a fraction of a second; with several
threads these small problems cost ten times as much, most of it waiting.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from relex_merge.trajectory.gram import Array


@dataclass(frozen=True)
class Spectra:
    """Eigen-decompositions of N Gram matrices, as :class:`Spectrum` is of one.

    eigenvalues: (N, T) λ_k = σ_k², descending, in weight²; rounding noise (below T·ε·λ₁) is 0.
    vectors: (N, T, T), column k is u_k; 0 where λ_k is 0, so that no direction is made of noise.
    """

    eigenvalues: Array
    vectors: Array

    def explained_variance(self, ranks: int) -> Array:
        """(N, ranks): Σ_{k≤r} λ_k / Σ λ_k for r = 1…ranks; NaN for a tensor that never moves."""
        total = self.eigenvalues.sum(axis=1, keepdims=True)
        share = np.cumsum(self.eigenvalues, axis=1) / np.where(total > 0, total, np.nan)
        return np.asarray(np.minimum(share, 1.0)[:, :ranks])

    def coefficients(self) -> Array:
        """(N, T): c(t) = σ₁ u₁(t), signed so that each series has a positive sum."""
        c = self.vectors[:, :, 0] * np.sqrt(self.eigenvalues[:, :1])
        sign = np.where(c.sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
        return np.asarray(c * sign)

    def rows(self, tensors: Sequence[int]) -> Spectra:
        """The spectra of some of the tensors."""
        return Spectra(self.eigenvalues[tensors], self.vectors[tensors])

    def project(self, rows: Array, rank: int) -> Array:
        """P_r h for every tensor and every row h: (J, T) → (N, J, T)."""
        U = self.vectors[:, :, :rank]
        return np.asarray((rows @ U) @ U.transpose(0, 2, 1))


@contextmanager
def one_thread() -> Iterator[None]:
    """Run small batched problems of torch on one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def spectra(grams: Array) -> Spectra:
    """Decompose G (N, T, T), symmetric float64, largest eigenvalue first."""
    import torch

    with one_thread():
        ascending, columns = torch.linalg.eigh(torch.from_numpy(np.ascontiguousarray(grams)))
    eigenvalues, vectors = ascending.numpy()[:, ::-1], columns.numpy()[:, :, ::-1]
    kept = _above_noise(eigenvalues)
    return Spectra(
        np.where(kept, eigenvalues, 0.0), np.ascontiguousarray(vectors * kept[:, np.newaxis, :])
    )


def eigenvalues(grams: Array) -> Array:
    """(N, T): the eigenvalues of G (N, T, T) alone, descending, rounding noise set to 0."""
    import torch

    with one_thread():
        ascending = torch.linalg.eigvalsh(torch.from_numpy(np.ascontiguousarray(grams)))
    descending = ascending.numpy()[:, ::-1]
    return np.where(_above_noise(descending), descending, 0.0)


def _above_noise(descending: Array) -> Array:
    """(N, T) True where an eigenvalue is more than the rounding of the decomposition."""
    largest = np.maximum(descending[:, :1], 0.0)
    return np.asarray(descending > descending.shape[1] * np.finfo(np.float64).eps * largest)
