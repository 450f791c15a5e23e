"""The report's prediction is the model that is written, against sums of explicit weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from relex_merge.report.written import written
from relex_merge.trajectory.backtests.backtest import stacked
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.predictors import PREDICTORS
from relex_merge.trajectory.predictors.anchored import ANCHORS
from tests.support.report_cases import Trajectory, make, report_of

STEPS = np.array([1.0, 2, 3, 5, 8, 10, 11, 14])
RUN = make(STEPS, names=("a", "b", "c"), law=0.7, d=60)


def line(M: Array, step: float, window: int) -> Array:
    """Fit the rank-1 coefficient of M (T, d) by a line, and go along the direction: θ̂ − θ₀."""
    v = np.linalg.svd(M, full_matrices=False)[2][0]
    fit = np.polynomial.Polynomial.fit(STEPS[-window:], (M @ v)[-window:], 1)
    return np.asarray(fit(step) * v)


def shown(displacement: Array, run: Trajectory) -> float:
    """Measure θ̂ − θ₀ (Σd,) along the first direction, in units of the last checkpoint's."""
    M = run.whole()
    v = np.linalg.svd(M, full_matrices=False)[2][0]
    return float((displacement @ v) / (M[-1] @ v))


def told(parameters: Any) -> float:
    model = report_of(RUN.statistics(), 40.0, parameters)["model"]
    return float(model["predicted"] / model["coefficients"][-1])


@pytest.mark.parametrize("scale", [0.5, 1.5])
@pytest.mark.parametrize("anchor", ANCHORS)
def test_a_line_is_anchored_and_scaled(anchor: str, scale: float) -> None:
    window = 6
    expected = []
    for M in RUN.deltas.values():
        here, there = line(M, STEPS[-1], window), line(M, 40.0, window)
        start = {"line": here, "last": M[-1], "average": M[-window:].mean(axis=0)}[anchor]
        expected.append(start + scale * (there - here))
    asked = Parameters(40.0, window=window, anchor=anchor, scale=scale)
    assert told(asked) == pytest.approx(shown(np.concatenate(expected), RUN), rel=1e-9)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_every_predictor_is_told_as_it_is_written(
    predictor: str, anchor: str, scale: float
) -> None:
    asked = Parameters(40.0, 2, window=6, predictor=predictor, anchor=anchor, scale=scale)
    explicit = [M.T @ asked.weights(M @ M.T, STEPS) for M in RUN.deltas.values()]
    M = RUN.whole()
    c = M @ np.linalg.svd(M, full_matrices=False)[2][0]
    found = written(stacked(RUN.statistics()), STEPS, [asked] * len(explicit), c, 40.0)
    assert found.predicted / c[-1] == pytest.approx(shown(np.concatenate(explicit), RUN), rel=1e-9)
    assert found.curve[-1].tolist() == pytest.approx([40.0, found.predicted], rel=1e-9)
    plain = replace(asked, target_step=STEPS[0], anchor="line", scale=1.0)
    fitted = [M.T @ plain.weights(M @ M.T, STEPS) for M in RUN.deltas.values()]
    assert found.curve[0, 1] / c[-1] == pytest.approx(shown(np.concatenate(fitted), RUN), abs=1e-9)


def test_tensors_follow_their_own_parameters() -> None:
    asked = {
        "a": Parameters(40.0),
        "b": Parameters(20.0, predictor="sqrt"),
        "c": Parameters(40.0, anchor="last", scale=0.1),
    }
    written = [M.T @ asked[n].weights(M @ M.T, STEPS) for n, M in RUN.deltas.items()]
    assert told(asked) == pytest.approx(shown(np.concatenate(written), RUN), rel=1e-9)


def test_a_reconstruction_is_the_checkpoint_in_the_kept_directions() -> None:
    asked = Parameters(8.0, mode="reconstruct")
    written = [
        (M[4] @ v) * v
        for M in RUN.deltas.values()
        for v in [np.linalg.svd(M, full_matrices=False)[2][0]]
    ]
    model = report_of(RUN.statistics(), 8.0, asked)["model"]
    expected = shown(np.concatenate(written), RUN)
    assert model["predicted"] / model["coefficients"][-1] == pytest.approx(expected, rel=1e-9)
