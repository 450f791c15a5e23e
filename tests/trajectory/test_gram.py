"""Least-squares rows, the error of a prediction, and the door through which G comes in."""

from __future__ import annotations

import numpy as np
import pytest

from relex_merge.trajectory import gram
from tests.support.reference import UNEVEN, polynomial, relative


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_the_least_squares_row_fits_every_weight_on_its_own(
    degree: int, window: int | None
) -> None:
    steps = np.random.default_rng(1).permutation(UNEVEN)
    M = np.random.default_rng(2).normal(size=(10, 50))
    h = gram.least_squares_rows(steps, [90.0], degree=degree, window=window)[0]
    assert relative(M.T @ h, polynomial(steps, M, 90.0, degree, window)) < 1e-10
    assert h.sum() == pytest.approx(1.0, abs=1e-9)
    if window is not None:
        assert not h[steps < np.sort(steps)[-window]].any()


def test_a_fit_far_from_step_zero_keeps_its_digits() -> None:
    near = gram.least_squares_rows(UNEVEN, [120.0], degree=3)
    far = gram.least_squares_rows(UNEVEN + 2.0**20, [120.0 + 2.0**20], degree=3)
    np.testing.assert_allclose(far, near, rtol=1e-10)


@pytest.mark.parametrize(("degree", "window"), [(1, 1), (2, 2), (10, None)])
def test_a_window_too_small_for_the_degree_is_refused(degree: int, window: int | None) -> None:
    with pytest.raises(ValueError, match=f"degree {degree} needs at least {degree + 1}"):
        gram.least_squares_rows(UNEVEN, [90.0], degree=degree, window=window)


def test_the_two_point_line_runs_from_the_base_through_the_last_checkpoint() -> None:
    w = gram.two_point_line([10.0, 40.0, 20.0], 100.0)
    assert w.tolist() == [0.0, 2.5, 0.0]


def test_the_error_of_a_prediction_is_its_distance_from_the_checkpoint() -> None:
    rng = np.random.default_rng(0)
    M, w = rng.normal(size=(6, 80)), rng.normal(size=6)
    for j in range(6):
        expected = ((M.T @ w - M[j]) ** 2).sum()
        assert gram.squared_error(M @ M.T, w, j) == pytest.approx(expected, rel=1e-12)
    assert gram.squared_error(M @ M.T, gram.unit(6, 2), 2) == 0.0


def test_a_symmetric_matrix_comes_back_bit_for_bit_and_any_other_symmetric() -> None:
    G = np.random.default_rng(0).normal(size=(4, 6, 6))
    found = gram.symmetric(G)
    assert (found == found.swapaxes(1, 2)).all()
    np.testing.assert_array_equal(gram.symmetric(found), found)


@pytest.mark.parametrize("scale", [1e-76, 1e-3, 1.0, 7.0, 1e300])
def test_another_unit_changes_no_digit(scale: float) -> None:
    M = np.random.default_rng(0).normal(size=(5, 30))
    G = scale * np.stack([M @ M.T, 1e-6 * (M @ M.T)])
    found = gram.rescaled(G)
    assert 0.25 <= np.einsum("ntt->nt", found).max() < 4
    assert (np.frexp(found)[0] == np.frexp(G)[0]).all()
    assert not gram.rescaled(np.zeros((1, 3, 3))).any()
