"""Which numbers a sample holds: each has its chance, and the rule depends on sizes alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relex_merge.trajectory.sampling.plan import SamplePlan, draw_by_request, draw_by_tensor

# The tensors of a layer of Qwen2.5-1.5B, in the order of their names, as files have them.
MLP = (1536, 8960 * 1536, 8960 * 1536, 8960 * 1536, 1536)
LAYER = (*MLP, 256, 256 * 1536, 1536 * 1536, 1536, 1536 * 1536, 256, 256 * 1536)
QWEN = (151936 * 1536, *LAYER * 28, 1536)

Draw: TypeAlias = Callable[..., SamplePlan]
DRAWS: list[Draw] = [draw_by_tensor, draw_by_request]
numels = st.lists(st.integers(0, 1000), min_size=1, max_size=6).filter(lambda d: sum(d) > 0)


def drawn(plan: SamplePlan) -> npt.NDArray[np.float64]:
    """How often each number of the line is drawn, times the weight that it is drawn with."""
    counts = np.zeros(plan.total)
    begin = np.concatenate([[0], np.cumsum(plan.numels)])
    for cell in plan.drawn:
        for piece in cell.pieces:
            assert 0 <= piece.start < piece.stop <= plan.numels[piece.tensor]
            first = begin[piece.tensor]
            counts[first + piece.start : first + piece.stop] += plan.strata[cell.stratum].weight
    return counts


def names(sizes: Sequence[int]) -> list[str]:
    return [str(i) for i in range(len(sizes))]


@settings(max_examples=60, deadline=None)
@given(numels, st.floats(0.05, 1.0), st.sampled_from(DRAWS))
def test_no_number_is_drawn_twice_and_the_larger_plan_holds_the_smaller(
    sizes: list[int], share: float, draw: Draw
) -> None:
    plan = draw(names(sizes), sizes, max(int(share * sum(sizes)), 1))
    once = drawn(plan)
    weights = {stratum.weight for stratum in plan.strata}
    assert set(np.unique(once)) <= {0.0, *weights}
    assert plan.numbers == np.count_nonzero(once)
    larger = plan.doubled(1.0)
    added = list(larger.beyond(plan))
    assert len(added) == len(larger.drawn) - len(plan.drawn)
    assert set(plan.drawn) | set(added) == set(larger.drawn)


@pytest.mark.parametrize("draw", [draw_by_tensor, draw_by_request])
def test_on_average_over_seeds_each_number_counts_once(draw: Draw) -> None:
    sizes = [37, 900, 5, 2500]
    plans = [draw(names(sizes), sizes, 400, seed=s) for s in range(1000)]
    mean = np.mean([drawn(plan) for plan in plans], axis=0)
    # A weight near 9 has a standard deviation of 3 at most: 5 standard errors.
    assert np.abs(mean - 1).max() < 5 * 3 / np.sqrt(1000)


def test_by_tensor_small_ones_are_whole_and_all_are_there() -> None:
    sizes = [64, 64, 1_000_000, 300_000]
    plan = draw_by_tensor(names(sizes), sizes, 13_000)
    held = plan.held
    assert held["0"].whole
    assert held["1"].whole
    assert not held["2"].whole
    assert held["2"].numbers > 3 * held["3"].numbers * 0.8
    assert 0.9 < plan.numbers / 13_000 < 1.1


def test_few_requests_at_half_a_percent_of_qwen() -> None:
    plan = draw_by_request(names(QWEN), QWEN, int(0.005 * sum(QWEN)))
    assert len(plan.drawn) <= 32
    assert 0.0048 < plan.share <= 0.00501
    assert plan.doubled(1.0).share == pytest.approx(0.01, rel=0.01)


def test_every_tensor_of_qwen_in_some_hundred_requests() -> None:
    plan = draw_by_tensor(names(QWEN), QWEN, int(0.005 * sum(QWEN)), cells=4)
    assert len(plan.drawn) < 4 * len(QWEN)
    assert min(held.numbers for held in plan.held.values()) >= 256
    assert plan.share == pytest.approx(0.005, rel=0.05)


def test_the_plan_is_the_same_on_every_machine() -> None:
    plan = draw_by_tensor(["a", "b"], [1000, 100], 300)
    starts = [cell.pieces[0].start for cell in plan.drawn]
    assert starts == [128, 192, 704, 832, 64]
    assert plan.drawn == draw_by_tensor(["a", "b"], [1000, 100], 300).drawn
