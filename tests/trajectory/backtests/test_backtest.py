"""Backtests from G equal backtests done with the weights; sums over tensors are sums of errors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from relex_merge.errors import RelexError
from relex_merge.trajectory.backtests.backtest import backtests, plan, stacked
from relex_merge.trajectory.backtests.compared import baselines, method
from relex_merge.trajectory.backtests.error_law import ErrorLaw, fit_error_law
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.predictors.history import before_cut
from tests.support.reference import naive_skill
from tests.support.report_cases import Trajectory, make, report_of

STEPS = np.asarray([1.0, 2, 3, 5, 6, 8, 9, 11, 12, 14, 17, 20])


def fitted_line(y: Array, steps: Array, target: float, degree: int = 1) -> Array:
    """Least squares through each column of y (h, k), at the target."""
    V = np.vander(steps, degree + 1)
    return np.asarray(np.linalg.lstsq(V, y, rcond=None)[0].T @ np.vander([target], degree + 1)[0])


def rank_r(M: Array, steps: Array, target: float, rank: int, degree: int = 1) -> Array:
    V = np.linalg.svd(M, full_matrices=False)[2][:rank]
    return np.asarray(fitted_line(M @ V.T, steps, target, degree) @ V)


EXPLICIT: dict[str, Callable[[Array, Array, float], Array]] = {
    "linear": lambda M, s, target: rank_r(M, s, target, 1),
    "rank_r": lambda M, s, target: rank_r(M, s, target, 3),
    "quadratic": lambda M, s, target: rank_r(M, s, target, 1, degree=2),
    "least_squares": fitted_line,
    "two_point": lambda M, s, target: M[-1] * target / s[-1],
    "method": lambda M, s, target: rank_r(M, s, target, 2),
}


@pytest.fixture(scope="module")
def run() -> Trajectory:
    return make(STEPS, walk=0.3)


@pytest.mark.parametrize("key", EXPLICIT)
def test_every_backtest_is_the_error_of_the_explicit_prediction(run: Trajectory, key: str) -> None:
    grams = stacked(run.statistics())
    own = [Parameters(80.0, rank=2)] * len(grams)
    found = backtests(grams, STEPS, plan(STEPS, 3.0), [method(own), *baselines(3)])
    assert len(found.target) > 20
    first = next(iter(run.deltas.values()))
    unit = found.still[0, 0] / ((first[found.fitted[0] - 1] - first[found.target[0]]) ** 2).sum()
    for p, (h, j) in enumerate(zip(found.fitted, found.target, strict=True)):
        for i, M in enumerate(run.deltas.values()):
            still = ((M[h - 1] - M[j]) ** 2).sum()
            assert found.still[i, p] == pytest.approx(still * unit, rel=1e-8)
            if key == "quadratic" and h < 3:
                assert np.isnan(found.errors[key][i, p])
                continue
            error = ((EXPLICIT[key](M[:h], STEPS[:h], STEPS[j]) - M[j]) ** 2).sum()
            assert found.errors[key][i, p] == pytest.approx(error * unit, rel=1e-8)
            assert found.ratio[p] == STEPS[j] / STEPS[h - 1]


@pytest.mark.parametrize("ratio", [1.3, 2.0, 20 / 6, 6.5])
def test_skill_of_a_tensor_is_that_of_predicting_the_last_checkpoint_from_the_early_ones(
    run: Trajectory, ratio: float
) -> None:
    target = ratio * STEPS[-1]
    shapes = {name: Parameters(target, rank=1 + i % 2) for i, name in enumerate(run.deltas)}
    report = report_of(run.statistics(), target, shapes)
    for name, M in run.deltas.items():
        expected = naive_skill(M, STEPS, ratio, shapes[name].rank)
        assert report["tensors"][name]["backtest_skill"] == pytest.approx(expected, rel=1e-9)


def test_skill_of_the_model_is_that_of_all_weights_together(run: Trajectory) -> None:
    report = report_of(run.statistics(), 60.0)
    h = before_cut(STEPS, 3.0)
    predicted = np.concatenate(
        [EXPLICIT["linear"](M[:h], STEPS[:h], STEPS[-1]) for M in run.deltas.values()]
    )
    M = run.whole()
    skill = 1 - ((predicted - M[-1]) ** 2).sum() / ((M[h - 1] - M[-1]) ** 2).sum()
    assert report["model"]["backtest_skill"] == pytest.approx(skill, rel=1e-9)
    assert report["summary"]["backtest_skill"]["model"] == pytest.approx(skill, rel=1e-9)
    assert report["backtests"]["skill"]["linear"] == pytest.approx(skill, rel=1e-9)
    assert report["backtests"]["cut"] == h


def test_a_cut_with_too_few_checkpoints_before_it_is_not_tested(run: Trajectory) -> None:
    report = report_of(run.statistics(), 15 * STEPS[-1])
    assert report["model"]["backtest_skill"] is None
    assert report["summary"]["backtest_skill"] == dict.fromkeys(("min", "mean", "max", "model"))


def test_held_out_skill_is_the_true_one(run: Trajectory) -> None:
    report = report_of(run.statistics(8), 20.0, holdout=run.statistics())
    assert [trial["step"] for trial in report["holdout"]] == STEPS[8:].tolist()
    M, seen = run.whole(), STEPS[:8]
    for trial in report["holdout"]:
        j = int(np.flatnonzero(trial["step"] == STEPS)[0])
        predicted = np.concatenate(
            [EXPLICIT["linear"](D[:8], seen, trial["step"]) for D in run.deltas.values()]
        )
        skill = 1 - ((predicted - M[j]) ** 2).sum() / ((M[7] - M[j]) ** 2).sum()
        assert trial["skill"]["method"] == pytest.approx(skill, rel=1e-9)


def test_held_out_checkpoints_change_nothing_but_the_truth(run: Trajectory) -> None:
    without = report_of(run.statistics(8), 20.0)
    given = report_of(run.statistics(8), 20.0, holdout=run.statistics())
    for key in without.keys() - {"holdout", "verdict"}:
        assert given[key] == without[key]


def test_a_held_out_step_inside_the_window_is_refused(run: Trajectory) -> None:
    observed = make(np.delete(STEPS, 4)).statistics()
    with pytest.raises(RelexError, match="held-out step 6 lies within the observed steps"):
        report_of(observed, 40.0, holdout=run.statistics())


def test_expected_skill_lies_between_the_short_backtest_and_the_truth_under_noise() -> None:
    """A line with white noise, 75 of 1000 steps: five checkpoints cannot see it, 75 can."""
    run = make(np.append(np.arange(1.0, 76), 1000.0), walk=0, white=0.05, d=2000)
    statistics = run.statistics(75)
    report = report_of(statistics, 1000.0, holdout=run.statistics())
    truth = report["holdout"][0]["skill"]["method"]
    law = fit_error_law(
        backtests(
            stacked(statistics),
            statistics.steps,
            plan(statistics.steps, 40 / 3),
            [method([Parameters(1000.0)] * len(run.deltas))],
        )
    )
    assert law is not None
    assert truth > 0.9
    assert report["model"]["backtest_skill"] < law.skill(40 / 3) < truth
    assert law.skill(40 / 3, 1) > 0


def test_a_hopeless_law_gives_a_number_that_json_can_hold() -> None:
    law = ErrorLaw(np.asarray([5.0, 400.0, 0.0]), np.eye(3), 1.0, 1.2, 40.0)
    assert np.isfinite([law.skill(40.0, z) for z in (-1, 0, 1)]).all()
    assert law.skill(40.0) < -1e300
