"""What a user is asked before a model is written, and what needs no question."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from relex_merge.report.doubts import doubts
from tests.support.report_cases import make, report_of

STEPS = np.arange(1.0, 13.0)


def report(**changes: Any) -> Any:
    """The report of a straight run, its verdict changed."""
    found = report_of(make(STEPS).statistics(), 24.0)
    assert found["verdict"]["verdict"] == "extrapolate"
    found["verdict"].update(changes)
    return found


def negative(found: Any) -> Any:
    for trial in found["backtests"]["grid"]:
        trial["skill"]["method"] = -0.5
    return found


def test_a_straight_run_needs_no_question() -> None:
    assert doubts(report()) == []


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("do not extrapolate", "the backtests speak against it"),
        ("not enough checkpoints to tell", "12 checkpoints are not enough to tell"),
    ],
)
def test_bad_verdicts_are_doubts(word: str, said: str) -> None:
    assert doubts(report(verdict=word)) == [said]


@pytest.mark.parametrize(("supported", "doubted"), [(15.9, True), (16.0, False), (None, False)])
def test_a_target_far_beyond_the_supported_one_is_a_doubt(
    supported: float | None, doubted: bool
) -> None:
    found = doubts(report(verdict="caution", supported_target=supported))
    assert bool(found) == doubted
    if doubted:
        assert found == ["step 24 is 1.5× the furthest one that the backtests support, 15.9"]


def test_backtests_that_all_lose_are_a_doubt_but_for_16_bit_files() -> None:
    found = negative(report(verdict="caution"))
    assert doubts(found) == ["in every backtest the prediction was worse than standing still"]
    found["verdict"]["verdict"] = "weights cannot tell"
    assert doubts(found) == []


@pytest.mark.parametrize("evidence", ["function", "labels"])
def test_stronger_evidence_decides_alone(evidence: str) -> None:
    found = negative(report(verdict="caution", evidence=evidence, supported_target=13.0))
    assert doubts(found) == []
    found["verdict"]["verdict"] = "do not extrapolate"
    assert len(doubts(found)) == 1


def test_two_checkpoints_a_hundredfold_ahead() -> None:
    found = report_of(make(np.asarray([1.0, 2.0])).statistics(), 200.0)
    assert doubts(found) == ["2 checkpoints are not enough to tell"]


def test_the_last_observed_checkpoint_may_always_be_written() -> None:
    found = negative(report(verdict="do not extrapolate"))
    found["method"]["predictor"] = "stay"
    assert doubts(found) == []
