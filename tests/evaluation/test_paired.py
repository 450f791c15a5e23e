"""Paired differences: intervals that keep their level, and how many questions would tell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relex_merge.errors import RelexError
from relex_merge.evaluation.paired import Z, paired
from relex_merge.evaluation.scores import TaskScores, differences


def _outcomes(wins: int, ties: int, losses: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([1.0] * wins + [0.0] * ties + [-1.0] * losses)


def test_the_interval_is_agresti_and_mins() -> None:
    """Their formula on the 2 × 2 table with half a question more in each cell."""
    b, c, n = 21, 9, 100
    found = paired([_outcomes(b, n - b - c, c)])
    b2, c2, n2 = b + 0.5, c + 0.5, n + 2
    centre = (b2 - c2) / n2
    spread = 1.959964 * np.sqrt(b2 + c2 - (b2 - c2) ** 2 / n2) / n2
    assert (found.low, found.high) == pytest.approx((centre - spread, centre + spread), rel=1e-6)
    assert found.mean == pytest.approx(0.12)
    assert found.stderr == pytest.approx(np.sqrt(0.3 - 0.12**2) / np.sqrt(99))


@pytest.mark.parametrize("n", [20, 100])
def test_intervals_cover_the_truth(n: int) -> None:
    rng = np.random.default_rng(0)
    truth, runs = 0.2 - 0.1, 4000
    draws = rng.choice([1.0, 0.0, -1.0], p=[0.2, 0.7, 0.1], size=(runs, n))
    found = [paired([row]) for row in draws]
    covered = np.mean([d.low <= truth <= d.high for d in found])
    assert 0.935 <= covered <= 0.985


def test_all_ties_are_no_certainty() -> None:
    found = paired([np.zeros(10)])
    assert (found.mean, found.stderr) == (0, 0)
    assert found.low < 0 < found.high
    assert found.better == "cannot be told"
    assert found.would_tell is None
    assert found.sentence.endswith(
        "cannot be told with 10 questions (+0.000, 95 % interval "
        f"{found.low:+.3f} to {found.high:+.3f})."
    )


def test_two_wins_of_two_are_not_enough_but_twenty_are() -> None:
    assert paired([_outcomes(2, 0, 0)]).better == "cannot be told"
    assert paired([_outcomes(20, 0, 0)]).better == "yes"
    assert paired([_outcomes(0, 5, 20)]).better == "no"


def test_the_number_that_would_tell_does() -> None:
    found = paired([_outcomes(12, 80, 8)])
    assert found.would_tell is not None
    assert f"about {found.would_tell} would tell" in found.sentence
    factor = found.would_tell / 100
    more = paired([_outcomes(round(12 * factor), round(80 * factor), round(8 * factor))])
    fewer = paired([_outcomes(round(6 * factor), round(40 * factor), round(4 * factor))])
    assert more.low == pytest.approx(0, abs=0.003)
    assert fewer.better == "cannot be told"


def test_every_task_has_the_same_weight() -> None:
    large, small = _outcomes(100, 300, 0), _outcomes(0, 10, 10)
    found = paired([large, small])
    assert found.mean == pytest.approx((0.25 - 0.5) / 2)
    assert found.n == 420
    alone = [d.std(ddof=1) / np.sqrt(len(d)) for d in (large, small)]
    assert found.stderr == pytest.approx(np.hypot(*alone) / 2)


def test_scores_beyond_one_widen_the_interval() -> None:
    found = paired([np.array([50.0, 50.0])])
    assert found.high - found.low > Z * 50 / 2


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), min_size=1, max_size=40))
def test_turning_the_comparison_round_turns_the_answer_round(values: list[float]) -> None:
    one, two = paired([np.array(values)]), paired([-np.array(values)])
    assert (one.low, one.high) == pytest.approx((-two.high, -two.low))
    assert {one.better, two.better} in ({"yes", "no"}, {"cannot be told"})


def test_differences_are_by_question_and_positive_is_better() -> None:
    last = TaskScores({"a": 0.0, "b": 1.0, "c": 0.5})
    model = TaskScores({"b": 0.0, "a": 1.0, "d": 1.0})
    assert differences(model, last, task="t", name="m").tolist() == [1.0, -1.0]
    low = TaskScores({"a": 2.0}, higher_is_better=False)
    assert differences(low, TaskScores({"a": 3.0}), task="t", name="m").tolist() == [1.0]
    with pytest.raises(RelexError, match="m and the last observed checkpoint share no question"):
        differences(TaskScores({"z": 1.0}), last, task="t", name="m")
