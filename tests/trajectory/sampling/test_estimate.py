"""G from a sample against G from all numbers, and the standard errors against the spread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest

from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.sampling.estimate import Sampled, standard_error, with_true_numels
from relex_merge.trajectory.sampling.output_error import output_errors
from relex_merge.trajectory.sampling.plan import SamplePlan, draw_by_request, draw_by_tensor
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics

Draw: TypeAlias = Callable[..., SamplePlan]
STEPS = np.arange(1.0, 5.0)
SIZES = {"a.weight": 6000, "b.weight": 40, "c.weight": 9000}


def deltas(rng: np.random.Generator) -> dict[str, Array]:
    """A line with noise, (T, d) for each tensor; neighbours move alike, as in a matrix's row."""
    found = {}
    for name, d in SIZES.items():
        row = np.repeat(np.exp(0.5 * rng.normal(size=-(-d // 20))), 20)[:d]
        found[name] = row * (np.outer(STEPS, rng.normal(size=d)) + rng.normal(size=(4, d)))
    return found


def total(series: SeriesStatistics) -> float:
    return sum(float(np.trace(t.gram)) for t in series.tensors.values())


def sums(D: Array) -> TensorStatistics:
    return TensorStatistics(D @ D.T, float(D.shape[1]), D.shape[1], D.shape[1])


def sample(plan: SamplePlan, D: dict[str, Array]) -> Sampled:
    found = Sampled(plan, STEPS)
    for cell in plan.drawn:
        parts = {p.tensor: sums(D[plan.names[p.tensor]][:, p.start : p.stop]) for p in cell.pieces}
        found.add(cell, parts)
    return found


@pytest.mark.parametrize("draw", [draw_by_tensor, draw_by_request])
def test_a_sample_of_everything_is_exact_and_without_error(draw: Draw) -> None:
    D = deltas(np.random.default_rng(0))
    plan = draw(list(SIZES), list(SIZES.values()), sum(SIZES.values()))
    found = sample(plan, D)
    whole = found.statistics()
    assert whole.sampled
    for name, d in SIZES.items():
        np.testing.assert_allclose(whole.tensors[name].gram, D[name] @ D[name].T, rtol=1e-12)
        assert whole.tensors[name].numel == d
    for replicate in found.replicates():
        for name in SIZES:
            np.testing.assert_allclose(
                replicate.tensors[name].gram, whole.tensors[name].gram, rtol=1e-12
            )


@pytest.mark.parametrize("draw", [draw_by_tensor, draw_by_request])
def test_g_is_unbiased_and_its_standard_error_is_the_spread_over_seeds(draw: Draw) -> None:
    D = deltas(np.random.default_rng(1))
    exact = sum(float(np.trace(d @ d.T)) for d in D.values())
    totals, errors = [], []
    for seed in range(150):
        plan = draw(list(SIZES), list(SIZES.values()), 3000, seed=seed)
        found = sample(plan, D)

        own = total(found.statistics())
        error = standard_error(own, [total(r) for r in found.replicates()])
        assert error is not None
        totals.append(own)
        errors.append(error)
    spread = float(np.std(totals))
    assert abs(np.mean(totals) - exact) < 4 * spread / np.sqrt(150)
    # A spread over 150 seeds is itself known to 6 %.
    assert 0.75 < np.sqrt(np.mean(np.square(errors))) / spread < 1.3


def test_a_growing_sample_is_the_larger_sample() -> None:
    D = deltas(np.random.default_rng(2))
    plan = draw_by_tensor(list(SIZES), list(SIZES.values()), 2000)
    found, larger = sample(plan, D), plan.doubled(1.0)
    found.grow(larger)
    for cell in larger.beyond(plan):
        found.add(
            cell,
            {p.tensor: sums(D[plan.names[p.tensor]][:, p.start : p.stop]) for p in cell.pieces},
        )
    for one, other in zip(found.replicates(), sample(larger, D).replicates(), strict=True):
        for name in one.tensors:
            np.testing.assert_allclose(one.tensors[name].gram, other.tensors[name].gram, rtol=1e-12)


def test_an_undefined_figure_has_no_standard_error() -> None:
    assert standard_error(None, [1.0, 2.0]) is None
    assert standard_error(1.0, [1.0, None]) is None
    assert standard_error(1.0, [1.0, 3.0]) == pytest.approx(np.sqrt(2.0))


def test_true_sizes_keep_the_share_that_moved() -> None:
    plan = draw_by_tensor(list(SIZES), list(SIZES.values()), 2000)
    found = with_true_numels(sample(plan, deltas(np.random.default_rng(3))).statistics(), SIZES)
    assert {n: (t.numel, t.moved) for n, t in found.tensors.items()} == {
        n: (d, d) for n, d in SIZES.items()
    }


def test_the_error_of_written_tensors_is_about_the_true_one() -> None:
    D = deltas(np.random.default_rng(4))
    parameters = {name: Parameters(20.0) for name in SIZES}
    exact = {n: Parameters(20.0).weights(d @ d.T, STEPS) for n, d in D.items()}
    true, told = [], []
    for seed in range(20):
        found = sample(draw_by_tensor(list(SIZES), list(SIZES.values()), 3000, seed=seed), D)
        tensors = found.statistics().tensors
        w = {n: Parameters(20.0).weights(tensors[n].gram, STEPS) for n in SIZES}
        true.append(sum(float(np.sum(((w[n] - exact[n]) @ D[n]) ** 2)) for n in SIZES))
        errors = output_errors(found, parameters, dict.fromkeys(SIZES, "bfloat16"))
        told.append(errors.error**2)
    update = sum(float(np.sum((exact[n] @ D[n]) ** 2)) for n in SIZES)
    assert errors.update**2 == pytest.approx(update, rel=0.2)
    assert 0.5 < np.sqrt(np.mean(told) / np.mean(true)) < 2
