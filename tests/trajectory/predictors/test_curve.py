"""Curves with one free shape recover it from series that follow their law."""

from __future__ import annotations

import numpy as np
import pytest

from relex_merge.trajectory.predictors.curve import exponent, time_constant
from relex_merge.trajectory.predictors.history import RANK_1
from tests.support.predictions import EVEN, along, coefficient, of_one


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
