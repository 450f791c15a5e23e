"""Means over tokens, skills, and their standard errors over prompts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relex_merge.evaluation.estimates import ClusteredSums, by_cluster, ratio, skill


def test_mean_over_tokens_weighs_prompts_by_their_tokens() -> None:
    sums = ClusteredSums(np.array([2.0, 9.0]), np.array([1.0, 3.0]))
    assert sums.mean().value == pytest.approx(11 / 4)


def test_stderr_of_equal_prompts_is_the_usual_one() -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(size=40)
    found = ratio(means * 5, np.full(40, 5.0))
    assert found.stderr == pytest.approx(means.std(ddof=1) / np.sqrt(40))


def test_stderr_agrees_with_the_jackknife_on_unequal_prompts() -> None:
    rng = np.random.default_rng(1)
    counts = rng.integers(5, 60, size=200).astype(np.float64)
    totals = counts * rng.gamma(2.0, 0.1, size=200)
    left_out = (totals.sum() - totals) / (counts.sum() - counts)
    jackknife = np.sqrt(199 / 200 * np.sum((left_out - left_out.mean()) ** 2))
    assert ratio(totals, counts).stderr == pytest.approx(jackknife, rel=0.02)


def test_stderr_covers_the_truth_when_responses_hang_together_by_prompt() -> None:
    """95 % intervals over prompts cover; intervals over single tokens would not."""
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(400):
        counts = rng.integers(10, 50, size=64).astype(np.float64)
        found = ratio(counts * rng.exponential(0.3, size=64), counts)
        assert found.stderr is not None
        covered += abs(found.value - 0.3) < 1.96 * found.stderr
    assert 0.90 <= covered / 400 <= 0.98


def test_one_prompt_has_no_standard_error() -> None:
    assert ratio(np.array([3.0]), np.array([2.0])).stderr is None


def test_skill_is_one_for_a_perfect_and_zero_for_an_idle_prediction() -> None:
    still = ClusteredSums(np.array([1.0, 2.0, 4.0]), np.array([5.0, 5.0, 5.0]))
    perfect = ClusteredSums(np.zeros(3), still.counts)
    found, idle = skill(perfect, still), skill(still, still)
    assert found is not None
    assert (found.value, found.stderr) == (1.0, 0.0)
    assert idle is not None
    assert idle.value == pytest.approx(0.0)


def test_skill_is_undefined_where_nothing_moved() -> None:
    nothing = ClusteredSums(np.zeros(3), np.ones(3))
    assert skill(nothing, nothing) is None


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 40)), min_size=2, max_size=12))
def test_responses_of_one_prompt_may_be_summed_in_any_grouping(
    responses: list[tuple[float, int]],
) -> None:
    values = np.array([v for v, _ in responses])
    counts = np.array([float(n) for _, n in responses])
    clusters = np.arange(len(responses)) // 2
    sums = by_cluster(values, counts, clusters)
    assert sums.mean().value == pytest.approx(values.sum() / counts.sum())
    order = np.random.default_rng(0).permutation(len(responses))
    again = by_cluster(values[order], counts[order], clusters[order])
    assert again.totals == pytest.approx(sums.totals)
