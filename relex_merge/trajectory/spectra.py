"""Eigen-decompositions of many small Gram matrices at once.

A model has hundreds of tensors, each with a G of T × T, and the report decomposes every one of them
at a dozen cuts. LAPACK on one thread does that in a fraction of a second; with several threads
these small problems cost ten times as much, most of it waiting, and their last digits depend on
how many cores there are.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

from relex_merge.trajectory.gram import Array


@dataclass(frozen=True)
class Spectra:
    """Eigen-decompositions of N Gram matrices.

    Attributes:
        eigenvalues: (N, T) λ_k = σ_k², descending, in weight²; rounding noise (below T·ε·λ₁) is 0.
        vectors: (N, T, T), column k is u_k; sign and, among equal λ, basis are arbitrary.
    """

    eigenvalues: Array
    vectors: Array

    def explained_variance(self, ranks: int) -> Array:
        """Return (N, ranks) Σ_{k≤r} λ_k / Σ λ_k for r = 1…ranks; NaN where a tensor never moves."""
        total = self.eigenvalues.sum(axis=1, keepdims=True)
        share = np.cumsum(self.eigenvalues, axis=1) / np.where(total > 0, total, np.nan)
        return np.asarray(np.minimum(share, 1.0)[:, :ranks])

    def coefficients(self) -> Array:
        """Return (N, T) c(t) = σ₁ u₁(t), signed so that each series has a positive sum."""
        c = self.vectors[:, :, 0] * np.sqrt(self.eigenvalues[:, :1])
        sign = np.where(c.sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
        return np.asarray(c * sign)

    def project(self, rows: Array, rank: int) -> Array:
        """Return P_r h for every tensor and every row h, in the directions that exist.

        Args:
            rows: (J, T), or (N, J, T) where they differ from tensor to tensor.
            rank: How many leading directions; those of noise are left out.

        Returns:
            (N, J, T).
        """
        U = self.vectors[:, np.newaxis, :, :rank]
        exist = self.eigenvalues[:, np.newaxis, :rank, np.newaxis] > 0
        # A product for each row: w has the same bits however many tensors and targets there are.
        along = U.swapaxes(2, 3) @ rows[..., np.newaxis]
        return np.asarray((U @ np.where(exist, along, 0.0))[..., 0])


def spectra(grams: Array) -> Spectra:
    """Decompose G (N, T, T), symmetric float64, largest eigenvalue first."""
    with one_thread():
        ascending, columns = np.linalg.eigh(grams)
    return Spectra(_without_noise(ascending[:, ::-1]), columns[:, :, ::-1])


def eigenvalues(grams: Array) -> Array:
    """Return (N, T) the eigenvalues of G (N, T, T) alone, descending, rounding noise set to 0."""
    with one_thread():
        ascending = np.linalg.eigvalsh(grams)
    return _without_noise(np.asarray(ascending[:, ::-1], np.float64))


def _without_noise(descending: Array) -> Array:
    largest = np.maximum(descending[:, :1], 0.0)
    noise = descending.shape[1] * np.finfo(np.float64).eps * largest
    return np.where(descending > noise, descending, 0.0)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run numpy's BLAS on one thread.

    The limit holds for the whole process. So whoever finds it set, by this function in another
    thread or by the engine, leaves it alone, and it is lifted by the one who set it.
    """
    libraries = _libraries()
    with _entering:
        limited = all(each["num_threads"] == 1 for each in libraries.info())
        limit = nullcontext() if limited else libraries.limit(limits=1)
    with limit:
        yield


_entering = threading.Lock()


@cache
def _libraries() -> ThreadpoolController:
    """Return what sets the threads of numpy's BLAS; to find the library takes milliseconds."""
    return ThreadpoolController().select(user_api="blas")
