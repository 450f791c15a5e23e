"""Labels outrank function, function outranks weights; each says what it cannot see."""

from __future__ import annotations

import pytest

from relex_merge.report.difference import Difference
from relex_merge.report.estimate import Estimate
from relex_merge.report.final_verdict import Geometry, decide
from relex_merge.report.functional import Function
from relex_merge.trajectory.backtests.results import Word

STOP = Geometry("do not extrapolate", ["The backtest of the weights is bad."])
GOOD = Function(Estimate(0.05, 0.01), 4.0, Estimate(0.4, 0.05))
BAD = Function(Estimate(1.2, 0.01), 4.0, Estimate(-0.4, 0.05))
CLOSE = Function(Estimate(0.05, 0.01), 4.0, Estimate(0.01, 0.05))
BLIND = Function(Estimate(0.05, 0.01), 4.0, None)
FAR = Function(Estimate(0.9, 0.01), 4.0, None)
BETTER = Difference(0.2, 0.05, 0.1, 0.3, 100)
WORSE = Difference(-0.2, 0.05, -0.3, -0.1, 100)
EVEN = Difference(0.01, 0.05, -0.1, 0.1, 100)


@pytest.mark.parametrize(
    ("function", "labels", "verdict", "evidence"),
    [
        (None, None, "do not extrapolate", "geometry"),
        (GOOD, None, "extrapolate", "function"),
        (BAD, None, "do not extrapolate", "function"),
        (CLOSE, None, "caution", "function"),
        (BLIND, None, "do not extrapolate", "geometry"),
        (FAR, None, "do not extrapolate", "function"),
        (BAD, BETTER, "extrapolate", "labels"),
        (GOOD, WORSE, "do not extrapolate", "labels"),
        (GOOD, EVEN, "extrapolate", "function"),
        (None, EVEN, "do not extrapolate", "geometry"),
        (None, BETTER, "extrapolate", "labels"),
    ],
)
def test_the_later_outranks_the_earlier_where_it_can_tell(
    function: Function | None, labels: Difference | None, verdict: Word, evidence: str
) -> None:
    found = decide(STOP, function, labels)
    assert (found.verdict, found.evidence) == (verdict, evidence)
    kinds = [s.evidence for s in found.statements]
    assert kinds == [
        *["labels"] * (labels is not None),
        *["function"] * (function is not None),
        "geometry",
    ]


@pytest.mark.parametrize("word", ["extrapolate", "caution", "not enough checkpoints to tell"])
def test_geometrys_word_stands_where_nothing_later_can_tell(word: Word) -> None:
    assert decide(Geometry(word, []), BLIND, EVEN).verdict == word


@pytest.mark.parametrize(
    ("function", "labels", "verdict", "evidence"),
    [
        (None, None, "weights cannot tell", "geometry"),
        (BLIND, None, "not enough checkpoints to tell", "geometry"),
        (BLIND, EVEN, "not enough checkpoints to tell", "geometry"),
        (GOOD, None, "extrapolate", "function"),
        (BAD, EVEN, "do not extrapolate", "function"),
        (BLIND, BETTER, "extrapolate", "labels"),
    ],
)
def test_weights_that_cannot_tell_leave_the_word_to_others(
    function: Function | None, labels: Difference | None, verdict: Word, evidence: str
) -> None:
    found = decide(Geometry("weights cannot tell", ["The files are bfloat16."]), function, labels)
    assert (found.verdict, found.evidence) == (verdict, evidence)
    assert found.statements[-1].verdict is None
    assert "The files are bfloat16." in found.reasons


def test_nothing_to_extrapolate_stands() -> None:
    found = decide(Geometry("nothing to extrapolate", ["Step 5 was observed."]), GOOD, BETTER)
    assert (found.verdict, found.evidence) == ("nothing to extrapolate", "geometry")
    assert found.reasons[0] == "Step 5 was observed."


def test_reasons_begin_with_the_evidence_that_decided() -> None:
    found = decide(STOP, GOOD, EVEN)
    assert found.reasons[0].startswith("Functional backtest at your ratio of 4×")
    assert "skill +0.40 ± 0.05" in found.reasons[0]
    assert "0.05 ± 0.01 nats a token" in found.reasons[1]
    assert "near it: below 0.1" in found.reasons[1]
    assert "cannot be told with 100 questions" in found.reasons[2]
    assert found.reasons[3] == "The backtest of the weights is bad."


def test_a_backtest_that_is_impossible_is_said() -> None:
    found = decide(STOP, BLIND)
    assert "No functional backtest is possible at your ratio of 4×." in found.reasons
    assert found.statements[0].verdict is None


def test_every_kind_says_what_it_cannot_see() -> None:
    found = decide(STOP, GOOD, BETTER)
    assert [
        (
            "rounding noise" in s.cannot_see,
            "whether answers are right" in s.cannot_see,
            "other tasks" in s.cannot_see,
        )
        for s in found.statements
    ] == [(False, False, True), (False, True, False), (True, False, False)]
