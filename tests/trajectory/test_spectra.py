"""Decompositions of many Gram matrices, against the SVD of the explicit M."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from relex_merge.trajectory.gram import Array, least_squares_rows
from relex_merge.trajectory.spectra import Spectra, eigenvalues, one_thread, spectra
from tests.support.reference import UNEVEN, deltas


def grams(T: int, N: int = 4) -> Array:
    rng = np.random.default_rng(T)
    M = rng.normal(size=(N, T, 2 * T))
    return np.asarray(M @ M.swapaxes(1, 2))


def test_explained_variance_and_coefficients_are_those_of_the_svd() -> None:
    M = deltas(8, UNEVEN, 200)
    U, S, _ = np.linalg.svd(M, full_matrices=False)
    found = spectra((M @ M.T)[np.newaxis])
    shares = np.cumsum(S**2) / (S**2).sum()
    np.testing.assert_allclose(found.explained_variance(10)[0], shares, rtol=1e-12)
    c = U[:, 0] * S[0]
    np.testing.assert_allclose(found.coefficients()[0], c * np.sign(c.sum()), atol=1e-10)
    np.testing.assert_allclose(eigenvalues((M @ M.T)[np.newaxis])[0], S**2, rtol=1e-9)


def test_a_random_walk_already_explains_81_percent() -> None:
    walk = np.minimum.outer(np.arange(1.0, 101), np.arange(1.0, 101))  # E⟨δ_i, δ_j⟩ = min(i, j)
    share = spectra(walk[np.newaxis]).explained_variance(1)[0, 0]
    assert share == pytest.approx(8 / math.pi**2, abs=1e-3)


def test_the_sign_of_the_singular_vectors_does_not_matter() -> None:
    M = deltas(9, UNEVEN, 100)
    found = spectra((M @ M.T)[np.newaxis])
    flipped = Spectra(found.eigenvalues, found.vectors * (-1.0) ** np.arange(1, 11))
    rows = least_squares_rows(UNEVEN, [90.0])
    for rank in (1, 2, 5):
        np.testing.assert_allclose(flipped.project(rows, rank), found.project(rows, rank), 1e-12)
    np.testing.assert_allclose(flipped.coefficients(), found.coefficients(), rtol=1e-12)
    assert found.coefficients().sum() > 0


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_directions_of_noise_are_no_directions(rank: int) -> None:
    M = deltas(6, UNEVEN, 2)
    found = spectra((M @ M.T)[np.newaxis])
    assert np.count_nonzero(found.eigenvalues) == 2
    U = np.linalg.svd(M)[0][:, : min(rank, 2)]
    rows = least_squares_rows(UNEVEN, [90.0])
    np.testing.assert_allclose(found.project(rows, rank)[0, 0], U @ (U.T @ rows[0]), atol=1e-9)


def test_a_tensor_that_never_moves_has_no_direction() -> None:
    found = spectra(np.zeros((2, 4, 4)))
    assert not found.eigenvalues.any()
    assert not found.project(np.ones((3, 4)), 4).any()
    assert np.isnan(found.explained_variance(4)).all()


@pytest.mark.parametrize("T", [2, 6, 25, 75])
@pytest.mark.parametrize("rank", [1, 2])
def test_what_is_judged_and_what_is_written_have_the_same_bits(T: int, rank: int) -> None:
    G, rows = grams(T), least_squares_rows(np.arange(float(T)), [3.0 * T, 7.0 * T])
    together = spectra(G).project(rows, rank)
    for i, each in enumerate(G):
        for j in range(2):
            alone = spectra(each[np.newaxis]).project(rows[j : j + 1], rank)
            np.testing.assert_array_equal(together[i, j], alone[0, 0])


def blas_threads() -> list[int]:
    """Return the threads of numpy's own BLAS; other libraries may have brought theirs."""
    return [each["num_threads"] for each in threadpool_info() if "numpy" in each["filepath"]]


def test_blas_has_one_thread_inside_and_its_own_number_again_outside() -> None:
    before = blas_threads()
    with one_thread():
        assert blas_threads() == [1] * len(before)
        with one_thread():
            assert blas_threads() == [1] * len(before)
        assert blas_threads() == [1] * len(before)
    assert blas_threads() == before


def test_a_limit_set_in_one_thread_is_lifted_there_and_by_no_other() -> None:
    before = blas_threads()
    seen: list[list[int]] = []

    def other() -> None:
        with one_thread():
            seen.append(blas_threads())
        seen.append(blas_threads())

    with one_thread():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert seen == [[1] * len(before)] * 2
    assert blas_threads() == before


def test_many_threads_at_once_leave_the_number_of_threads_as_it_was() -> None:
    before = blas_threads()
    G = grams(20, N=50)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: spectra(G).vectors, range(64)))
    assert blas_threads() == before
    for each in found:
        np.testing.assert_array_equal(each, found[0])
