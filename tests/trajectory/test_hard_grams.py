"""Nearly symmetric, nearly singular, tiny and huge G: everything is right, or a gap, or refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relex_merge.trajectory.backtests.automatic import choose
from relex_merge.trajectory.backtests.figures import figures, fits
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.predictors import PREDICTORS, FitParameters
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics
from tests.support.reference import deltas
from tests.support.report_cases import make, report_of

EXPONENTS = st.sampled_from([-300, -76, -38, -10, 0, 10, 38, 150, 300])
EVEN = np.arange(1.0, 13)


@contextmanager
def no_warning() -> Iterator[None]:
    """An overflow or a division by zero is a fault, also where its result is thrown away."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@st.composite
def hard(draw: st.DrawFn) -> tuple[Array, Array]:
    """Draw G and steps of a series that moves in few directions, stands still, jumps or repeats.

    With rounding of float32 or float64, which respects no symmetry.
    """
    T = draw(st.integers(2, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    M = np.outer(
        np.arange(1.0, T + 1) ** draw(st.sampled_from([0.0, 0.5, 1.0, 2.0])), rng.normal(size=8)
    )
    M += draw(st.sampled_from([0.0, 1e-12, 1e-4, 1.0])) * rng.normal(size=M.shape)
    shape = draw(st.sampled_from(["as it is", "still at first", "still at last", "once", "never"]))
    if shape == "still at first":
        M[: T // 2] = 0.0
    elif shape == "still at last":
        M[T // 2 :] = M[-1]
    elif shape == "once":
        M[:-1] = 0.0
    elif shape == "never":
        M[:] = 0.0
    G = M @ M.T
    G *= 1 + draw(st.sampled_from([0.0, 1e-16, 1e-7])) * rng.normal(size=G.shape)
    unit = 10.0 ** draw(EXPONENTS) / (np.diag(G).max() or 1.0)
    steps = np.cumsum(rng.integers(1, 30, T)).astype(np.float64)
    return np.asarray(unit * G), steps


@pytest.mark.parametrize("name", sorted(PREDICTORS))
@given(case=hard(), rank=st.integers(1, 3), ratio=st.sampled_from([1.0, 1.3, 4.0, 40.0]))
@settings(max_examples=40, deadline=None)
def test_every_predictor_gives_finite_weights(
    name: str, case: tuple[Array, Array], rank: int, ratio: float
) -> None:
    G, steps = case
    predictor = PREDICTORS[name].with_fit(FitParameters(rank))
    if not predictor.is_enough(steps):
        return
    with no_warning():
        w = predictor.weights(G, steps, ratio * steps[-1])
    assert np.isfinite(w).all()


@given(case=hard(), other=hard(), ratio=st.sampled_from([1.3, 4.0, 40.0]))
@settings(max_examples=15, deadline=None)
def test_a_report_has_numbers_or_gaps(
    case: tuple[Array, Array], other: tuple[Array, Array], ratio: float
) -> None:
    G, steps = case
    fits_too = other[0].shape == G.shape
    statistics = SeriesStatistics(
        steps,
        {
            "model.layers.0.up.weight": TensorStatistics(G, 1.0, 8, 8),
            "model.layers.1.up.weight": TensorStatistics(other[0] if fits_too else G, 1.0, 8, 8),
        },
    )
    with no_warning():
        report = report_of(statistics, ratio * steps[-1])
    json.dumps(report, allow_nan=False)
    with no_warning():
        for target in (ratio * float(steps[-1]), None):
            choice = choose(statistics, target, scope="tensor")
            json.dumps(choice.as_json(), allow_nan=False)


@pytest.mark.parametrize("name", sorted(PREDICTORS))
@given(exponent=EXPONENTS, seed=st.integers(0, 20))
@settings(max_examples=15, deadline=None)
def test_the_unit_of_the_weights_changes_no_prediction(name: str, exponent: int, seed: int) -> None:
    M = deltas(seed, EVEN, 30)
    G = M @ M.T
    w = PREDICTORS[name].weights(G, EVEN, 50.0)
    again = PREDICTORS[name].weights(10.0**exponent * G, EVEN, 50.0)
    np.testing.assert_allclose(again, w, rtol=1e-5, atol=1e-6 * np.abs(w).max())


@pytest.mark.parametrize("exponent", [-300, -38, 38, 130])  # from 1e140 on G counts as broken
def test_the_unit_of_the_weights_changes_no_figure_no_verdict_and_no_choice(exponent: int) -> None:
    whole = make(EVEN, law=0.7, names=("w", "v")).statistics()
    scaled = SeriesStatistics(
        EVEN,
        {
            n: TensorStatistics(10.0**exponent * t.gram, t.base_squared_norm, t.moved, t.numel)
            for n, t in whole.tensors.items()
        },
    )
    with no_warning():
        expected, found = (report_of(each, 48.0) for each in (whole, scaled))
        assert choose(scaled, 48.0).names == choose(whole, 48.0).names
    assert found["verdict"]["verdict"] == expected["verdict"]["verdict"]
    for name, entry in expected["tensors"].items():
        for key in ("explained_variance", "r2", "straightness", "angle", "backtest_skill"):
            assert found["tensors"][name][key] == pytest.approx(entry[key], rel=1e-6), key
        for key in ("end_speed", "curvature_gain", "curvature_chance"):
            assert found["tensors"][name][key] == pytest.approx(entry[key], rel=1e-6), key


@pytest.mark.parametrize("T", [6, 7])
def test_both_triangles_of_what_is_nearly_symmetric_count_the_same(T: int) -> None:
    """``D @ D.T`` in float32 need not be symmetric; whichever triangle is read, w is the same."""
    M = deltas(3, EVEN[:T], 40)
    G = M @ M.T * (1 + 1e-7 * np.random.default_rng(0).normal(size=(T, T)))
    for name in PREDICTORS:
        asked = Parameters(40.0, predictor=name)
        w, turned = (
            asked.weights(TensorStatistics(each, 1.0, 40, 40).gram, EVEN[:T]) for each in (G, G.T)
        )
        np.testing.assert_array_equal(w, turned)


def test_a_series_that_never_moves_has_gaps_for_figures() -> None:
    with no_warning():
        found = figures(np.zeros((1, 12, 12)), EVEN)
        r2 = fits(found.coefficients, EVEN, 40.0, degree=1, window=None).r2
    for figure in (found.explained_variance, found.straightness, found.angle, r2):
        assert np.isnan(figure).all()
    for figure in (found.curvature.gain, found.curvature.chance, found.curvature.end_speed):
        assert np.isnan(figure).all()
