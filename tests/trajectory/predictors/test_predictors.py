"""Every predictor against explicit arithmetic in float64, on data whose law is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.predictors import PREDICTORS, FitParameters
from relex_merge.trajectory.predictors.curve import exponent, time_constant
from relex_merge.trajectory.predictors.damped import nodes, pairs, run_trials
from relex_merge.trajectory.predictors.history import RANK_1, History
from tests.support.reference import UNEVEN, deltas

EVEN = np.arange(1.0, 31)
ALL = sorted(PREDICTORS)


def weights(
    name: str,
    G: Array,
    steps: Array,
    target: float,
    *,
    rank: int = 1,
    window: int | None = None,
    degree: int = 1,
) -> Array:
    """Return w (T,) of a named predictor."""
    fit = FitParameters(rank, window, degree)
    return PREDICTORS[name].with_fit(fit).weights(G, steps, target)


def of_one(G: Array, steps: Array) -> History:
    """The history of one tensor."""
    return History.of(G[np.newaxis], steps)


def along(c: Array, d: int = 40, seed: int = 0) -> Array:
    """M (T, d): the coefficients c on one direction."""
    return np.asarray(np.outer(c, np.random.default_rng(seed).standard_normal(d)))


def coefficient(name: str, M: Array, steps: Array, target: float) -> float:
    """What the predictor makes of the series, in units of its last observed value."""
    predicted = M.T @ weights(name, M @ M.T, steps, target)
    return float(predicted @ M[-1] / (M[-1] @ M[-1]))


@pytest.mark.parametrize("steps", [EVEN, UNEVEN], ids=["even", "uneven"])
def test_sqrt_continues_a_square_root_exactly(steps: Array) -> None:
    found = coefficient("sqrt", along(3 * np.sqrt(steps) - 0.5), steps, 400.0)
    expected = (3 * np.sqrt(400.0) - 0.5) / (3 * np.sqrt(steps[-1]) - 0.5)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("p", [0.2, 0.5, 0.73, 1.0])
def test_power_recovers_the_exponent(p: float) -> None:
    M = along(EVEN**p + 0.3)
    assert exponent(of_one(M @ M.T, EVEN), RANK_1)[0] == pytest.approx(p, abs=1e-6)
    expected = (200.0**p + 0.3) / (EVEN[-1] ** p + 0.3)
    assert coefficient("power", M, EVEN, 200.0) == pytest.approx(expected, rel=1e-6)


def test_power_holds_the_logarithm_too() -> None:
    M = along(np.log(EVEN) + 1)
    assert exponent(of_one(M @ M.T, EVEN), RANK_1)[0] < 1e-5
    expected = (np.log(200.0) + 1) / (np.log(EVEN[-1]) + 1)
    assert coefficient("power", M, EVEN, 200.0) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("tau", [3.0, 12.0, 90.0])
def test_saturating_recovers_the_time_constant(tau: float) -> None:
    M = along(-np.expm1(-EVEN / tau))
    assert time_constant(of_one(M @ M.T, EVEN), RANK_1)[0] == pytest.approx(tau, rel=1e-5)
    expected = np.expm1(-200 / tau) / np.expm1(-EVEN[-1] / tau)
    assert coefficient("saturating", M, EVEN, 200.0) == pytest.approx(expected, rel=1e-6)


def test_local_takes_the_latest_slope_from_the_latest_level() -> None:
    rng = np.random.default_rng(1)
    c = np.where(EVEN < 12, 0.1 * EVEN, EVEN - 10.0) + 0.3 * rng.standard_normal(30)
    slope = np.polyfit(EVEN[-10:], c[-10:], 1)[0]
    level = np.polyval(np.polyfit(EVEN[-5:], c[-5:], 1), EVEN[-1])
    expected = (level + 70 * slope) / c[-1]
    assert coefficient("local", along(c), EVEN, 100.0) == pytest.approx(expected, rel=1e-9)


def test_damped_lies_between_standing_still_and_the_line() -> None:
    M = along(np.sqrt(EVEN)) + 0.05 * np.random.default_rng(2).standard_normal((30, 40))
    line = coefficient("linear", M, EVEN, 200.0)
    found = coefficient("damped", M, EVEN, 200.0)
    assert 1 < found < line
    truth = np.sqrt(200 / 30)
    assert abs(found - truth) < 0.5 * abs(line - truth)


def test_damped_holds_back_more_the_further_it_reaches() -> None:
    M = along(np.sqrt(EVEN)) + 0.05 * np.random.default_rng(2).standard_normal((30, 40))
    shares = []
    for target in (60.0, 200.0, 800.0):
        line, found = (coefficient(name, M, EVEN, target) for name in ("linear", "damped"))
        shares.append((found - 1) / (line - 1))
    assert shares[0] > 1.1 * shares[1] > 1.2 * shares[2] > 0


def test_damped_leaves_an_exact_line_alone() -> None:
    assert coefficient("damped", along(EVEN), EVEN, 200.0) == pytest.approx(200 / 30, rel=1e-6)


@pytest.mark.parametrize("rank", [1, 3])
def test_stay_is_the_last_checkpoint(rank: int) -> None:
    M = deltas(3, UNEVEN, 50)
    found = weights("stay", M @ M.T, UNEVEN, 500.0, rank=rank)
    np.testing.assert_array_equal(found, np.eye(10)[-1])


@pytest.mark.parametrize("name", [n for n in ALL if n not in ("stay", "damped")])
@pytest.mark.parametrize("rank", [1, 2])
def test_predictions_lie_in_the_leading_directions(name: str, rank: int) -> None:
    M = deltas(4, UNEVEN, 50)
    V = np.linalg.svd(M, full_matrices=False)[2][rank:]
    predicted = M.T @ weights(name, M @ M.T, UNEVEN, 120.0, rank=rank)
    assert np.abs(V @ predicted).max() < 1e-8 * np.linalg.norm(predicted)


@pytest.mark.parametrize("name", ALL)
@given(scale=st.floats(1e-12, 1e12), seed=st.integers(0, 20), ratio=st.floats(1.05, 15))
@settings(max_examples=15, deadline=None)
def test_the_unit_of_the_weights_does_not_matter(
    name: str, scale: float, seed: int, ratio: float
) -> None:
    M = deltas(seed, UNEVEN, 30)
    target = ratio * UNEVEN[-1]
    w = weights(name, M @ M.T, UNEVEN, target)
    again = weights(name, scale * (M @ M.T), UNEVEN, target)
    np.testing.assert_allclose(again, w, rtol=1e-4, atol=1e-5 * np.abs(w).max())


@pytest.mark.parametrize("name", [n for n in ALL if n != "saturating"])
def test_the_unit_of_the_steps_does_not_matter(name: str) -> None:
    M = along(EVEN**0.7) + 0.1 * np.random.default_rng(5).standard_normal((30, 40))
    w = weights(name, M @ M.T, EVEN, 100.0)
    np.testing.assert_allclose(weights(name, M @ M.T, 7 * EVEN, 700.0), w, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ALL)
def test_many_tensors_at_once_are_each_alone(name: str) -> None:
    Ms = [deltas(seed, UNEVEN, 30) for seed in range(4)]
    history = History.of(np.stack([M @ M.T for M in Ms]), UNEVEN)
    predictor = PREDICTORS[name].with_fit(FitParameters(rank=2))
    W = predictor.predict(history, np.asarray([60.0, 200.0]))
    for i, M in enumerate(Ms):
        for j, target in enumerate((60.0, 200.0)):
            alone = weights(name, M @ M.T, UNEVEN, target, rank=2)
            np.testing.assert_allclose(W[min(i, len(W) - 1), j], alone, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ALL)
def test_a_cut_history_knows_nothing_of_what_comes_later(name: str) -> None:
    M = deltas(6, UNEVEN, 30)
    G = M @ M.T
    corrupted = G.copy()
    corrupted[7:], corrupted[:, 7:] = 1e6, 1e6
    predict = PREDICTORS[name].predict
    targets = np.asarray([60.0])
    for whole in (G, corrupted):
        history = History.of(whole[np.newaxis], UNEVEN)
        history.spectra  # noqa: B018  # what the later cut finds must not reach the earlier one
        found = predict(history.first(7), targets)
        np.testing.assert_array_equal(found, predict(of_one(G[:7, :7], UNEVEN[:7]), targets))


def test_a_tensor_that_never_moved_stays_the_base() -> None:
    for name in ALL:
        w = weights(name, np.zeros((10, 10)), UNEVEN, 80.0)
        assert np.isfinite(w).all()


def test_trials_hold_the_errors_of_explicit_predictions() -> None:
    M = deltas(7, UNEVEN, 40)
    trials = run_trials(of_one(M @ M.T, UNEVEN), RANK_1)
    which = pairs(UNEVEN)
    assert len(which) == len(trials.ratio) > 8
    scale = trials.missing[0, 0] / ((M[which[0][1]] - M[which[0][0] - 1]) ** 2).sum()
    for p, (h, j) in enumerate(which):
        line = M[:h].T @ weights("linear", M[:h] @ M[:h].T, UNEVEN[:h], UNEVEN[j])
        a, b = line - M[h - 1], M[j] - M[h - 1]
        found = (trials.missing[0, p], trials.along[0, p], trials.length[0, p])
        assert found == pytest.approx((b @ b * scale, a @ b * scale, a @ a * scale), rel=1e-6)
        assert trials.ratio[p] == UNEVEN[j] / UNEVEN[h - 1]


@pytest.mark.parametrize("T", [4, 5, 6, 10])
def test_damped_does_not_hang_on_rounding_where_trials_are_few(T: int) -> None:
    M = along(np.sqrt(EVEN[:T])) + 0.5 * np.random.default_rng(2).standard_normal((T, 40))
    found = []
    for seed in range(8):
        noise = 1e-15 * np.random.default_rng(seed).standard_normal((T, T))
        found.append(weights("damped", M @ M.T * (1 + noise + noise.T), EVEN[:T], 4.0 * T))
    np.testing.assert_allclose(found[1:], [found[0]] * 7, atol=1e-6)


def test_a_longer_history_adds_cuts_and_changes_none() -> None:
    for T in range(3, 60):
        assert nodes(np.arange(1.0, T + 1)) == [n for n in nodes(np.arange(1.0, 80)) if n <= T]
