"""The predictors in closed form, against the method spelled out on the explicit M."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relex_merge.trajectory import gram
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.predictors import PREDICTORS, FitParameters
from relex_merge.trajectory.spectra import spectra
from tests.support.predictions import EVEN, along, coefficient
from tests.support.reference import (
    UNEVEN,
    deltas,
    naive_reconstruction,
    naive_relex,
    polynomial,
    relative,
)


def weights(
    M: Array, steps: Array, target: float, rank: int, degree: int = 1, window: int | None = None
) -> Array:
    """Return w from G."""
    fit = FitParameters(rank, window, degree)
    return PREDICTORS["linear"].with_fit(fit).weights(M @ M.T, steps, target)


def relex(
    M: Array, steps: Array, target: float, rank: int, degree: int = 1, window: int | None = None
) -> Array:
    """The same from w: Mᵀw."""
    return np.asarray(M.T @ weights(M, steps, target, rank, degree, window))


def reconstructed(M: Array, steps: Array, step: float, rank: int) -> Array:
    return Parameters(step, rank, mode="reconstruct").weights(M @ M.T, steps)


def rank_of(M: Array) -> int:
    return int(np.count_nonzero(spectra((M @ M.T)[np.newaxis]).eigenvalues))


# A series with every choice of parameters that fits it.
@st.composite
def problems(draw: st.DrawFn) -> tuple[Array, Array, float, int, int, int | None]:
    T = draw(st.integers(2, 12))
    gaps = draw(st.lists(st.integers(1, 20), min_size=T, max_size=T))
    steps = np.asarray(draw(st.permutations(np.cumsum(gaps).tolist())), dtype=np.float64)
    degree = draw(st.integers(1, min(3, T - 1)))
    window = draw(st.one_of(st.none(), st.integers(degree + 1, T)))
    inside = np.sort(steps)[-(window or T) :]
    target = float(steps.max() + draw(st.floats(0.0, 10.0)) * np.ptp(inside))
    M = deltas(draw(st.integers(0, 2**32 - 1)), steps, draw(st.integers(1, 40)))
    return M, steps, target, draw(st.integers(1, T)), degree, window


# --- agreement with the explicit SVD ---------------------------------------------------------


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("window", [None, 4, 7])
@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("rank", [1, 2, 5, 10])
def test_the_prediction_is_that_of_the_explicit_svd(
    rank: int, degree: int, window: int | None, shuffled: bool
) -> None:
    steps = UNEVEN
    if shuffled:
        steps = np.random.default_rng(rank).permutation(steps)
    M = deltas(7, steps, 500)
    expected = naive_relex(M, steps, 120.0, rank, degree, window)
    assert relative(relex(M, steps, 120.0, rank, degree, window), expected) < 1e-10


@given(problems())
@settings(max_examples=150, deadline=None)
def test_the_prediction_is_that_of_the_explicit_svd_for_any_series(
    problem: tuple[Array, Array, float, int, int, int | None],
) -> None:
    M, steps, target, rank, degree, window = problem
    expected = naive_relex(M, steps, target, rank, degree, window)
    # h can be long and the prediction short: rounding is measured against ‖h‖ ‖M‖.
    h = polynomial(steps, np.eye(len(steps)), target, degree, window)
    error = np.linalg.norm(relex(M, steps, target, rank, degree, window) - expected)
    assert error < 1e-10 * np.linalg.norm(h)


@pytest.mark.parametrize("rank", [1, 3, 10])
def test_reconstruct_gives_the_truncated_svd_of_each_checkpoint(rank: int) -> None:
    steps = np.random.default_rng(3).permutation(UNEVEN)
    M = deltas(11, steps, 300)
    for j, step in enumerate(steps):
        w = reconstructed(M, steps, step, rank)
        assert relative(M.T @ w, naive_reconstruction(M, j, rank)) < 1e-10


def test_reconstruct_with_every_direction_gives_the_checkpoint_itself() -> None:
    steps = UNEVEN
    M = deltas(5, steps, 300)
    w = reconstructed(M, steps, 13.0, 10)
    np.testing.assert_allclose(w, gram.unit(10, 5), atol=1e-12)


def test_relex_of_full_rank_is_per_weight_least_squares() -> None:
    steps = UNEVEN
    M = deltas(4, steps, 100)
    assert relative(relex(M, steps, 90.0, 10), polynomial(steps, M, 90.0, 1, None)) < 1e-10


# --- closed forms ----------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2, 10])
@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (0.3, 5.0), (-0.2, 1.0)])
def test_an_exact_line_is_continued_exactly(slope: float, offset: float, rank: int) -> None:
    steps = UNEVEN
    v = np.random.default_rng(0).normal(size=200)
    M = np.outer(slope * steps + offset, v)
    assert relative(relex(M, steps, 500.0, rank), (slope * 500 + offset) * v) < 1e-12


def test_an_exact_parabola_along_one_direction_is_continued_exactly() -> None:
    steps = UNEVEN
    v = np.random.default_rng(0).normal(size=200)
    M = np.outer(0.01 * steps**2 + steps - 3, v)
    assert relative(relex(M, steps, 100.0, 1, degree=2), 197 * v) < 1e-12


def test_only_the_window_enters_the_fit_and_every_checkpoint_the_direction() -> None:
    steps = np.arange(1.0, 9.0)
    v = np.random.default_rng(0).normal(size=30)
    bent = np.where(steps <= 4, 7 * steps, 28 + 2 * (steps - 4))
    M = np.outer(bent, v)
    assert relative(relex(M, steps, 20.0, 1, window=4), 60 * v) < 1e-12


@given(problems(), st.floats(0.01, 100.0), st.floats(-1000.0, 1000.0))
@settings(max_examples=80, deadline=None)
def test_origin_and_unit_of_the_step_axis_do_not_matter(
    problem: tuple[Array, Array, float, int, int, int | None], scale: float, shift: float
) -> None:
    M, steps, target, rank, degree, window = problem
    w = weights(M, steps, target, rank, degree, window)
    moved = weights(M, steps * scale + shift, target * scale + shift, rank, degree, window)
    # Shifting by 1000 units of 0.01 leaves eleven digits of the axis, and the degree takes a few.
    np.testing.assert_allclose(moved, w, atol=1e-7 * max(np.abs(w).max(), 1.0))


@given(problems(), st.integers(0, 2**32 - 1))
@settings(max_examples=80, deadline=None)
def test_the_order_of_the_checkpoints_does_not_matter(
    problem: tuple[Array, Array, float, int, int, int | None], seed: int
) -> None:
    M, steps, target, rank, degree, window = problem
    order = np.random.default_rng(seed).permutation(len(steps))
    np.testing.assert_allclose(
        relex(M[order], steps[order], target, rank, degree, window),
        relex(M, steps, target, rank, degree, window),
        atol=1e-9 * (1 + target / np.ptp(steps)) ** degree,
    )
    line = gram.two_point_line(steps, target)
    assert gram.two_point_line(steps[order], target).tolist() == line[order].tolist()


@given(problems(), st.floats(1e-6, 1e3))
@settings(max_examples=40, deadline=None)
def test_the_unit_of_the_weights_does_not_matter(
    problem: tuple[Array, Array, float, int, int, int | None], unit: float
) -> None:
    M, steps, target, rank, degree, window = problem
    tolerance = 1e-9 * (1 + target / np.ptp(steps)) ** degree
    np.testing.assert_allclose(
        relex(unit * M, steps, target, rank, degree, window) / unit,
        relex(M, steps, target, rank, degree, window),
        atol=tolerance,
    )


# --- degenerate trajectories -----------------------------------------------------------------


@pytest.mark.parametrize("T", [1, 2, 7])
@pytest.mark.parametrize("d", [0, 1, 50])
def test_a_tensor_that_never_moves_gets_no_weights(T: int, d: int) -> None:
    steps = np.arange(1.0, T + 1)
    M = np.zeros((T, d))
    assert rank_of(M) == 0
    assert not reconstructed(M, steps, 1.0, T).any()
    if T > 1:
        assert not weights(M, steps, 10.0, T).any()


def test_two_checkpoints_give_the_line_through_their_two_projections() -> None:
    steps = np.asarray([10.0, 30.0])
    M = deltas(1, steps, 40)
    expected = naive_relex(M, steps, 100.0, 1)
    assert relative(relex(M, steps, 100.0, 1), expected) < 1e-10
    assert relative(relex(M, steps, 100.0, 2), M[1] + 3.5 * (M[1] - M[0])) < 1e-12


def test_two_equal_singular_values_are_one_plane() -> None:
    steps = np.arange(1.0, 6.0)
    rng = np.random.default_rng(0)
    U, V = np.linalg.qr(rng.normal(size=(5, 3)))[0], np.linalg.qr(rng.normal(size=(40, 3)))[0]
    M = (U * [2.0, 2.0, 1.0]) @ V.T
    h = polynomial(steps, np.eye(5), 20.0, 1, None)
    # With both, the answer is unique; with one of them, it is the shadow of h on some line in it.
    assert relative(relex(M, steps, 20.0, 2), V[:, :2] @ (2 * U[:, :2].T @ h)) < 1e-10
    one = relex(M, steps, 20.0, 1)
    assert np.linalg.norm(one) <= 2 * np.linalg.norm(U[:, :2].T @ h) * (1 + 1e-12)
    np.testing.assert_allclose(V[:, :2] @ (V[:, :2].T @ one), one, atol=1e-12)


def test_a_checkpoint_equal_to_the_base_counts_as_one_at_zero() -> None:
    steps = np.asarray([1.0, 5.0, 9.0, 12.0])
    M = deltas(2, steps, 40)
    M[0] = 0.0
    for rank in (1, 2, 4):
        assert relative(relex(M, steps, 60.0, rank), naive_relex(M, steps, 60.0, rank)) < 1e-10


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("rank", [1, 3, 10])
def test_fewer_weights_than_checkpoints(d: int, rank: int) -> None:
    steps = UNEVEN
    M = deltas(6, steps, d)
    assert rank_of(M) == d
    assert relative(relex(M, steps, 90.0, rank), naive_relex(M, steps, 90.0, rank)) < 1e-10


# --- other closed forms -------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [EVEN, UNEVEN], ids=["even", "uneven"])
def test_sqrt_continues_a_square_root_exactly(steps: Array) -> None:
    found = coefficient("sqrt", along(3 * np.sqrt(steps) - 0.5), steps, 400.0)
    expected = (3 * np.sqrt(400.0) - 0.5) / (3 * np.sqrt(steps[-1]) - 0.5)
    assert found == pytest.approx(expected, rel=1e-9)


def test_local_takes_the_latest_slope_from_the_latest_level() -> None:
    rng = np.random.default_rng(1)
    c = np.where(EVEN < 12, 0.1 * EVEN, EVEN - 10.0) + 0.3 * rng.standard_normal(30)
    slope = np.polyfit(EVEN[-10:], c[-10:], 1)[0]
    level = np.polyval(np.polyfit(EVEN[-5:], c[-5:], 1), EVEN[-1])
    expected = (level + 70 * slope) / c[-1]
    assert coefficient("local", along(c), EVEN, 100.0) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rank", [1, 3])
def test_stay_is_the_last_checkpoint(rank: int) -> None:
    M = deltas(3, UNEVEN, 50)
    found = PREDICTORS["stay"].with_fit(FitParameters(rank)).weights(M @ M.T, UNEVEN, 500.0)
    np.testing.assert_array_equal(found, np.eye(10)[-1])
