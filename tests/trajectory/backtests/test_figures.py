"""Every figure from G equals the same figure from the weights themselves."""

from __future__ import annotations

import numpy as np
import pytest

from relex_merge.trajectory.backtests.figures import RANKS, figures, fits
from relex_merge.trajectory.backtests.random_walk import random_walk_gram
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from tests.support.reference import UNEVEN, even_walk_eigenvalues
from tests.support.report_cases import Trajectory, make, report_of

STEPS = np.asarray([1.0, 2, 4, 5, 8, 9, 13, 14, 17, 20, 22])
CLOSE = 1e-9


@pytest.fixture(scope="module")
def run() -> Trajectory:
    return make(STEPS, walk=0.4, law=0.8)


def grams(run: Trajectory) -> Array:
    return np.stack([M @ M.T for M in run.deltas.values()])


def singular(M: Array) -> tuple[Array, Array, Array]:
    return np.linalg.svd(M, full_matrices=False)


def cumulative(M: Array) -> Array:
    squared = singular(M)[1] ** 2
    return np.asarray(np.cumsum(squared / squared.sum())[:RANKS])


def test_explained_variance_is_that_of_the_svd_of_the_deltas(run: Trajectory) -> None:
    found = figures(grams(run), STEPS).explained_variance
    explicit = np.stack([cumulative(M) for M in run.deltas.values()])
    np.testing.assert_allclose(found, explicit, rtol=CLOSE)


def test_step_spectrum_is_that_of_the_consecutive_deltas(run: Trajectory) -> None:
    found = figures(grams(run), STEPS).step_explained_variance
    explicit = [cumulative(np.diff(M, axis=0, prepend=0.0)) for M in run.deltas.values()]
    np.testing.assert_allclose(found, np.stack(explicit), rtol=CLOSE)


def test_coefficients_are_projections_on_the_first_direction(run: Trajectory) -> None:
    found = figures(grams(run), STEPS).coefficients
    for c, M in zip(found, run.deltas.values(), strict=True):
        explicit = M @ singular(M)[2][0]
        np.testing.assert_allclose(c, explicit * np.sign(explicit.sum()), rtol=CLOSE)


def test_straightness_is_displacement_over_path(run: Trajectory) -> None:
    found = figures(grams(run), STEPS).straightness
    for value, M in zip(found, run.deltas.values(), strict=True):
        path = np.linalg.norm(np.diff(M, axis=0, prepend=0.0), axis=1).sum()
        assert value == pytest.approx(np.linalg.norm(M[-1]) / path, rel=CLOSE)


def test_angle_is_between_the_directions_of_the_two_halves(run: Trajectory) -> None:
    found = figures(grams(run), STEPS).angle
    half = len(STEPS) // 2
    for value, M in zip(found, run.deltas.values(), strict=True):
        v1, v2 = singular(M[:half])[2][0], singular(M[half:])[2][0]
        assert value == pytest.approx(np.degrees(np.arccos(abs(v1 @ v2))), rel=CLOSE)


def test_leave_one_out_gain_is_that_of_refitting_without_each_checkpoint(run: Trajectory) -> None:
    found = figures(grams(run), STEPS)
    for c, gain in zip(found.coefficients, found.curvature.gain, strict=True):
        errors = []
        for degree in (1, 2):
            total = 0.0
            for i in range(len(STEPS)):
                kept = np.arange(len(STEPS)) != i
                p = np.polynomial.Polynomial.fit(STEPS[kept], c[kept], degree)
                total += float((p(STEPS[i]) - c[i]) ** 2)
            errors.append(total)
        assert gain == pytest.approx(1 - errors[1] / errors[0], rel=1e-7)


def test_end_speed_is_the_slope_of_the_parabola_over_the_mean_slope(run: Trajectory) -> None:
    found = figures(grams(run), STEPS)
    for c, speed in zip(found.coefficients, found.curvature.end_speed, strict=True):
        p = np.polynomial.Polynomial.fit(STEPS, c, 2)
        mean = (p(STEPS[-1]) - p(STEPS[0])) / (STEPS[-1] - STEPS[0])
        assert speed == pytest.approx(p.deriv()(STEPS[-1]) / mean, rel=1e-7)


@pytest.mark.parametrize(("degree", "window"), [(1, None), (1, 6), (2, 8)])
def test_r2_is_that_of_the_recipes_polynomial_over_its_window(
    run: Trajectory, degree: int, window: int | None
) -> None:
    report = report_of(run.statistics(), 100.0, Parameters(100.0, degree=degree, window=window))
    for name, M in run.deltas.items():
        c, s = (M @ singular(M)[2][0])[-(window or 99) :], STEPS[-(window or 99) :]
        p = np.polynomial.Polynomial.fit(s, c, degree)
        explicit = 1 - ((c - p(s)) ** 2).sum() / ((c - c.mean()) ** 2).sum()
        assert report["tensors"][name]["r2"] == pytest.approx(explicit, rel=CLOSE)


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("degree", [1, 2])
def test_a_fit_is_that_of_polyfit(degree: int, window: int | None) -> None:
    y = np.random.default_rng(6).normal(size=(3, 10)) + UNEVEN / 10
    found = fits(y, UNEVEN, 90.0, degree=degree, window=window)
    last = slice(-(window or 10), None)
    for i, series in enumerate(y):
        p = np.polyfit(UNEVEN[last], series[last], degree)
        residual = series[last] - np.polyval(p, UNEVEN[last])
        total = series[last] - series[last].mean()
        np.testing.assert_allclose(found.fitted[i], np.polyval(p, UNEVEN), rtol=1e-10)
        assert found.predicted[i] == pytest.approx(np.polyval(p, 90.0), rel=1e-10)
        r2 = 1 - (residual @ residual) / (total @ total)
        assert found.r2[i] == pytest.approx(r2, rel=1e-10)


@pytest.mark.parametrize("T", [3, 5, 7, 10])
def test_a_run_that_jumped_and_then_stood_still_is_fitted_perfectly(T: int) -> None:
    M = np.tile(np.random.default_rng(0).normal(size=100), (T, 1))
    steps = np.arange(1.0, T + 1)
    c = figures((M @ M.T)[np.newaxis], steps).coefficients
    assert fits(c, steps, 100.0, degree=1, window=None).r2.tolist() == [1.0]


def test_a_line_from_the_base_is_perfectly_straight() -> None:
    M = np.outer(UNEVEN, np.random.default_rng(0).normal(size=20))
    found = figures((M @ M.T)[np.newaxis], UNEVEN)
    assert found.straightness[0] == pytest.approx(1.0, abs=1e-7)
    assert found.explained_variance[0, 0] == pytest.approx(1.0, abs=1e-12)


def test_a_tensor_that_never_moves_has_no_figures() -> None:
    found = figures(np.zeros((1, 7, 7)), np.arange(1.0, 8))
    for figure in (found.explained_variance, found.straightness, found.angle):
        assert np.isnan(figure).all()
    c = found.coefficients
    assert np.isnan(fits(c, np.arange(1.0, 8), 10.0, degree=1, window=None).r2).all()


def test_a_group_is_its_tensors_laid_end_to_end(run: Trajectory) -> None:
    report = report_of(run.statistics(), 40.0)
    M = run.whole()
    base = np.concatenate(list(run.base.values()))
    model = report["model"]
    np.testing.assert_allclose(model["spectrum"], cumulative(M), rtol=CLOSE)
    update = np.linalg.norm(M[-1]) / np.linalg.norm(base)
    assert model["relative_update"] == pytest.approx(update, rel=CLOSE)
    q = np.concatenate([M for name, M in run.deltas.items() if "q_proj" in name], axis=1)
    np.testing.assert_allclose(report["kinds"]["q_proj"]["spectrum"], cumulative(q), rtol=CLOSE)
    layer = np.concatenate([M for name, M in run.deltas.items() if "layers.1." in name], axis=1)
    np.testing.assert_allclose(report["layers"]["1"]["spectrum"], cumulative(layer), rtol=CLOSE)


def test_null_is_what_simulated_random_walks_show() -> None:
    rng = np.random.default_rng(0)
    spans = np.sqrt(np.diff(STEPS, prepend=0.0))[:, np.newaxis]
    M = (spans * rng.standard_normal((len(STEPS), 200_000))).cumsum(axis=0)
    simulated = figures((M @ M.T)[np.newaxis], STEPS)
    null = figures(random_walk_gram(STEPS)[np.newaxis], STEPS)
    np.testing.assert_allclose(null.explained_variance, simulated.explained_variance, rtol=0.01)
    np.testing.assert_allclose(
        null.step_explained_variance, simulated.step_explained_variance, rtol=0.02
    )
    np.testing.assert_allclose(null.straightness, simulated.straightness, rtol=0.01)
    np.testing.assert_allclose(null.angle, simulated.angle, atol=0.5)


def test_null_has_the_closed_form_of_even_steps() -> None:
    eigenvalues = np.linalg.eigvalsh(random_walk_gram(np.arange(1.0, 31)))[::-1]
    np.testing.assert_allclose(eigenvalues, even_walk_eigenvalues(30), rtol=1e-10)


def test_null_tends_to_karhunen_loeve_of_brownian_motion() -> None:
    eigenvalues = even_walk_eigenvalues(100_000)
    k = np.arange(1, 5)
    np.testing.assert_allclose(
        eigenvalues[:4] / eigenvalues.sum(), 8 / ((2 * k - 1) * np.pi) ** 2, rtol=1e-4
    )


def test_straightness_of_an_even_walk_is_one_over_the_root_of_its_length() -> None:
    gram = random_walk_gram(np.arange(1.0, 26))[np.newaxis]
    assert figures(gram, np.arange(1.0, 26)).straightness[0] == pytest.approx(1 / 5)


def test_curvature_beyond_chance_is_rare_on_a_line_and_certain_on_a_root() -> None:
    steps = np.arange(1.0, 31)
    straight = [make(steps, names=("w",), walk=0, white=0.2, seed=s) for s in range(60)]
    bent = [make(steps, names=("w",), walk=0, white=0.2, law=0.5, seed=s) for s in range(20)]

    def chance(runs: list[Trajectory]) -> Array:
        return figures(np.concatenate([grams(r) for r in runs]), steps).curvature.chance

    assert np.mean(chance(straight) > 2) < 0.1
    assert np.all(chance(bent) > 2)
