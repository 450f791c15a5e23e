"""Promises about the choice of steps that are observed."""

from __future__ import annotations

import re

import pytest

from relex_merge.checkpoints.observe import select
from relex_merge.errors import RelexError

TEN = list(range(10, 101, 10))


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("10-40", [10, 20, 30, 40]),
        ("1-45", [10, 20, 30, 40]),
        ("10-100:30", [10, 40, 70, 100]),
        ("10,50,100", [10, 50, 100]),
        ("100, 10", [10, 100]),
        ("15%", [10, 20, 30]),
        ("7.5%", [10]),
        ("15%,100", [10, 20, 30, 100]),
        ("10-20,50-100:50", [10, 20, 50, 100]),
    ],
)
def test_observed_steps_are_ranges_strides_lists_and_shares_of_the_run(
    text: str, chosen: list[int]
) -> None:
    assert select(TEN, text, last_step=200) == chosen


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("15", "the nearest that it has: 10, 20"),
        ("15", "for the first 15 % of the run write --observe 15%"),
        ("1-9", "it has 10, 20, 30, 40, … 100"),
        ("1-100:10", "observe 1-100:10: the series has no such step"),
        ("1..75", "write 1-75, 1-75:5"),
        ("75-1", "a range goes up"),
        ("1-75:0", "strides of at least 1"),
        ("1%", "the series has no such step"),
        ("", "chooses nothing"),
        ("-5", "is no choice of steps"),
        (5000 * "9", "is no choice of steps"),
        ("1-" + 5000 * "9", "is no choice of steps"),
    ],
)
def test_what_chooses_no_step_is_refused(text: str, said: str) -> None:
    with pytest.raises(RelexError, match=re.escape(said)):
        select(TEN, text, last_step=200)
