"""What holds for every predictor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relex_merge.trajectory.predictors import PREDICTORS, FitParameters
from relex_merge.trajectory.predictors.history import History
from tests.support.predictions import EVEN, along, of_one, weights
from tests.support.reference import UNEVEN, deltas

ALL = sorted(PREDICTORS)


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
