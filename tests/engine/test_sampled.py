"""Reading a sample: from any source the numbers that the engine of all numbers would read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mergekit.options import MergeOptions

from relex_merge.engine.resources import available
from relex_merge.engine.sampled import SampleReader, sampled_tensors
from relex_merge.errors import RelexError
from relex_merge.pipeline.grams import form_grams
from relex_merge.pipeline.prepare import Prepared, prepare
from relex_merge.recipe.load import load_recipe
from relex_merge.recipe.variant import Variant
from relex_merge.trajectory.sampling.estimate import Sampled
from relex_merge.trajectory.sampling.plan import SamplePlan, draw_by_request, draw_by_tensor
from relex_merge.trajectory.statistics import SeriesStatistics
from tests.support.models import Series, make_series


def prepared_of(recipe: dict[str, Any]) -> Prepared:
    return prepare(load_recipe(recipe), [Variant()], MergeOptions())


def read(prepared: Prepared, plan: SamplePlan, budget: int | None = None) -> SeriesStatistics:
    found = Sampled(plan, prepared.plan.steps)
    reader = SampleReader(prepared.plan, sampled_tensors(prepared.plan))
    nbytes: list[int] = []
    reader.read(plan.drawn, found, available(MergeOptions(), budget), nbytes.append)
    assert sum(nbytes) == reader.nbytes(plan.drawn)
    return found.statistics()


def plan_of(prepared: Prepared, draw: Any, share: float) -> SamplePlan:
    tensors = sampled_tensors(prepared.plan)
    numels = [t.out.numel for t in tensors]
    return draw([t.name for t in tensors], numels, int(share * sum(numels)))  # type: ignore[no-any-return]


def exact(prepared: Prepared) -> SeriesStatistics:
    return form_grams(prepared, available(MergeOptions(), None), lambda _: lambda _: None)


@pytest.mark.parametrize("draw", [draw_by_tensor, draw_by_request])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sample_of_all_numbers_is_what_the_engine_forms(
    tmp_path: Path, draw: Any, dtype: torch.dtype
) -> None:
    prepared = prepared_of(make_series(tmp_path, dtype=dtype, shards=2).recipe())
    found, whole = read(prepared, plan_of(prepared, draw, 1)), exact(prepared)
    assert set(found.tensors) == set(whole.tensors)
    for name, t in whole.tensors.items():
        np.testing.assert_allclose(found.tensors[name].gram, t.gram, rtol=1e-6)
        assert found.tensors[name].moved == t.moved
        assert found.tensors[name].base_squared_norm == pytest.approx(t.base_squared_norm)


def test_the_memory_budget_changes_no_digit(series: Series) -> None:
    prepared = prepared_of(series.recipe())
    plan = plan_of(prepared, draw_by_tensor, 0.5)
    one, other = read(prepared, plan), read(prepared, plan, 4096)
    for name, t in one.tensors.items():
        assert np.array_equal(t.gram, other.tensors[name].gram)


def test_neighbours_in_the_file_are_neighbours_on_the_line(series: Series) -> None:
    prepared = prepared_of(series.recipe())
    names = [t.name for t in sampled_tensors(prepared.plan)]
    assert names == [n for n in prepared.plan.sources[-1].tensors if n in names]


def test_nan_in_the_sample_names_tensor_and_checkpoint(tmp_path: Path) -> None:
    series = make_series(tmp_path, scale=float("nan"))
    prepared = prepared_of(series.recipe())
    with pytest.raises(RelexError, match=r"step_1: .* holds NaN or Inf; leave that checkpoint out"):
        read(prepared, plan_of(prepared, draw_by_tensor, 0.5))
