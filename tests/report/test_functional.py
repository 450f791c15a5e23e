"""What functional figures say, and the thresholds they say it by."""

from __future__ import annotations

import pytest

from relex_merge.report.estimate import Estimate
from relex_merge.report.functional import (
    SAFE,
    SKILL,
    TRUST_REGION,
    Backtest,
    Function,
    skill_at,
)


def _function(skill: float | None, kl: float, error: float | None = 0.01) -> Function:
    return Function(Estimate(kl, error), 4.0, None if skill is None else Estimate(skill, error))


def test_the_thresholds_are_those_of_the_calibration() -> None:
    assert (SKILL, SAFE, TRUST_REGION) == (0.0, 0.1, 0.5)


@pytest.mark.parametrize(
    ("skill", "kl", "error", "says", "supports"),
    [
        (0.4, 0.05, 0.01, "for", True),
        (0.4, 0.2, 0.01, "unclear", False),
        (-0.4, 0.05, 0.01, "against", False),
        (-0.4, 0.2, 0.01, "against", False),
        (0.4, 0.7, 0.01, "against", False),
        (0.005, 0.05, 0.01, "unclear", True),
        (-0.005, 0.05, 0.01, "unclear", False),
        (0.4, 0.095, 0.01, "unclear", True),
        (0.4, 0.495, 0.01, "unclear", False),
        (0.005, 0.7, 0.01, "against", False),
        (0.001, 0.099, None, "for", True),
        (0.4, 0.05, 0.0, "for", True),
        (0.0, 0.05, 0.0, "unclear", False),
        (None, 0.05, 0.01, "unclear", False),
        (None, 0.7, 0.01, "against", False),
    ],
)
def test_what_figures_say(
    skill: float | None, kl: float, error: float | None, says: str, supports: bool
) -> None:
    found = _function(skill, kl, error)
    assert (found.says, found.supports) == (says, supports)


def test_a_backtest_speaks_about_its_own_and_shorter_ways() -> None:
    tests = [Backtest(r, Estimate(-r, None)) for r in (4.0, 1.5, 2.0)]
    for ratio, reached in [(1.2, 1.5), (1.5, 1.5), (1.6, 2.0), (3.9, 4.0), (4.1, 4.0)]:
        found = skill_at(tests, ratio)
        assert found is not None
        assert found.value == -reached
    assert skill_at(tests, 5.0) is None
    assert skill_at([], 2.0) is None
