"""What the trust report says of a trajectory, against the explicit M, coefficients and path."""

from __future__ import annotations

import math

import numpy as np
import pytest

from relex_merge.trajectory import gram
from tests.support.reference import UNEVEN, deltas, naive_relex, polynomial


@pytest.mark.parametrize("rank", [1, 2, 10])
def test_explained_variance_and_coefficients_are_those_of_the_svd(rank: int) -> None:
    M = deltas(8, UNEVEN, 200)
    U, S, _ = np.linalg.svd(M, full_matrices=False)
    spectrum = gram.spectrum(M @ M.T)
    share = (S[:rank] ** 2).sum() / (S**2).sum()
    assert spectrum.explained_variance(rank) == pytest.approx(share, rel=1e-12)
    c = spectrum.coefficients(rank)
    np.testing.assert_allclose(np.abs(c), np.abs(U * S)[:, :rank], atol=1e-10)


def test_a_random_walk_already_explains_81_percent_and_is_far_from_straight() -> None:
    T = 100
    walk = np.minimum.outer(np.arange(1.0, T + 1), np.arange(1.0, T + 1))  # E⟨δ_i, δ_j⟩ = min(i, j)
    ev = gram.spectrum(walk).explained_variance()
    assert ev == pytest.approx(8 / math.pi**2, abs=1e-3)
    assert gram.straightness(walk, np.arange(1.0, T + 1)) == pytest.approx(1 / math.sqrt(T))


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("degree", [1, 2])
def test_the_fit_is_that_of_polyfit(degree: int, window: int | None) -> None:
    steps = np.random.default_rng(5).permutation(UNEVEN)
    y = np.random.default_rng(6).normal(size=10) + steps / 10
    last = np.argsort(steps)[-(window or 10) :]
    p = np.polyfit(steps[last], y[last], degree)
    residual = y[last] - np.polyval(p, steps[last])
    total = y[last] - y[last].mean()
    fit = gram.fit(y, steps, 90.0, degree=degree, window=window)
    np.testing.assert_allclose(fit.fitted, np.polyval(p, steps), rtol=1e-10)
    assert fit.predicted == pytest.approx(np.polyval(p, 90.0), rel=1e-10)
    assert fit.r2 == pytest.approx(1 - (residual @ residual) / (total @ total), rel=1e-10)


@pytest.mark.parametrize("T", [3, 5, 7, 10])
def test_a_run_that_jumped_and_then_stood_still_is_fitted_perfectly(T: int) -> None:
    M = np.tile(np.random.default_rng(0).normal(size=100), (T, 1))
    series = gram.spectrum(M @ M.T).coefficients()[:, 0]
    assert gram.fit(series, np.arange(1.0, T + 1), 100.0).r2 == 1.0


def test_path_length_and_straightness_are_those_of_the_explicit_path() -> None:
    steps = np.random.default_rng(5).permutation(UNEVEN)
    M = deltas(3, steps, 100)
    path = np.vstack([np.zeros(100), M[np.argsort(steps)]])
    length = np.linalg.norm(np.diff(path, axis=0), axis=1).sum()
    G = M @ M.T
    assert gram.path_length(G, steps) == pytest.approx(length, rel=1e-12)
    straightness = np.linalg.norm(path[-1]) / length
    assert gram.straightness(G, steps) == pytest.approx(straightness, rel=1e-12)


def test_a_line_from_the_base_is_perfectly_straight() -> None:
    M = np.outer(UNEVEN, np.random.default_rng(0).normal(size=20))
    assert gram.straightness(M @ M.T, UNEVEN) == pytest.approx(1.0, abs=1e-7)


def test_the_error_of_a_prediction_is_its_distance_from_the_checkpoint() -> None:
    rng = np.random.default_rng(0)
    M, w = rng.normal(size=(6, 80)), rng.normal(size=6)
    for j in range(6):
        expected = ((M.T @ w - M[j]) ** 2).sum()
        assert gram.squared_error(M @ M.T, w, j) == pytest.approx(expected, rel=1e-12)
    assert gram.squared_error(M @ M.T, gram.unit(6, 2), 2) == 0.0


@pytest.mark.parametrize("window", [None, 3, 9])
@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("rank", [1, 2, 8])
@pytest.mark.parametrize("ratio", [1.4, 2.0, 3.5])
def test_backtest_skill_is_that_of_predicting_the_last_checkpoint_from_the_early_ones(
    ratio: float, rank: int, degree: int, window: int | None
) -> None:
    steps = np.random.default_rng(8).permutation(UNEVEN)
    M = deltas(12, steps, 60)
    G = M @ M.T
    early = steps <= 44 / ratio
    shortened = None if window is None else min(window, int(early.sum()))
    predicted = naive_relex(M[early], steps[early], 44.0, rank, degree, shortened)
    last = M[steps.argmax()]
    still = M[early][steps[early].argmax()]
    skill = 1 - ((predicted - last) ** 2).sum() / ((still - last) ** 2).sum()
    actual = gram.backtest_skill(G, steps, ratio, rank=rank, degree=degree, window=window)
    assert actual == pytest.approx(skill, rel=1e-8)


def test_a_line_backtests_perfectly_and_a_run_that_turns_back_worse_than_standing_still() -> None:
    steps = np.arange(1.0, 11.0)
    v = np.random.default_rng(0).normal(size=20)
    line, tent = np.outer(steps, v), np.outer(np.minimum(steps, 11 - steps), v)
    assert gram.backtest_skill(line @ line.T, steps, 2.0) == pytest.approx(1.0)
    # At 5 of 10 the tent is at its top, 5; the line says 10 and the run is at 1: 1 − (9 / 4)².
    assert gram.backtest_skill(tent @ tent.T, steps, 2.0) == pytest.approx(1 - 81 / 16)


def test_the_backtest_keeps_a_step_that_lies_exactly_at_the_cut() -> None:
    steps = np.arange(1.0, 101.0)
    c = np.sqrt(steps)
    G = np.outer(c, c)
    for cut in range(2, 100):
        early = steps[:cut]
        predicted = float(polynomial(early, c[:cut], 100.0, 1, None))
        skill = 1 - ((predicted - 10.0) / (c[cut - 1] - 10.0)) ** 2
        assert gram.backtest_skill(G, steps, 100.0 / cut) == pytest.approx(skill, rel=1e-6)


@pytest.mark.parametrize(
    ("ratio", "degree"), [(0.5, 1), (1.0, 1), (0.0, 1), (44.0, 1), (45.0, 1), (44 / 2.0, 2)]
)
@pytest.mark.filterwarnings("error")
def test_there_is_no_backtest_without_extrapolation_or_with_too_few_early_checkpoints(
    ratio: float, degree: int
) -> None:
    M = deltas(12, UNEVEN, 60)
    assert math.isnan(gram.backtest_skill(M @ M.T, UNEVEN, ratio, degree=degree))


def test_there_is_no_backtest_when_nothing_moved_after_the_cut() -> None:
    steps = np.arange(1.0, 9.0)
    M = np.outer(np.minimum(steps, 4.0), np.ones(3))
    assert math.isnan(gram.backtest_skill(M @ M.T, steps, 2.0))
