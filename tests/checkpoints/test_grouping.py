"""Promises about which checkpoints make up a series, and what is said about it."""

from __future__ import annotations

from relex_merge.checkpoints.grouping import gaps


def test_gaps_are_those_of_a_series_that_is_regular_elsewhere() -> None:
    assert gaps([10, 20, 30, 50, 60, 90]) == ([40, 70, 80], 10)
    assert gaps([1, 2, 5, 10, 20, 50]) == ([], 1)
    assert gaps([7]) == ([], 0)


def test_a_number_far_away_is_no_endless_list_of_gaps() -> None:
    missing, stride = gaps([1, 2, 3, 10**15])
    assert (missing[:2], len(missing), stride) == ([4, 5], 13, 1)
