"""A sample that is held in memory, and Gram matrices that grow with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mergekit.options import MergeOptions

from relex_merge.engine.plan import ModelPlan
from relex_merge.engine.resources import available
from relex_merge.engine.sample_memory import SampleMemory
from relex_merge.errors import RelexError
from relex_merge.pipeline.grams import form_grams
from relex_merge.pipeline.prepare import Prepared, prepare
from relex_merge.recipe.load import load_recipe
from relex_merge.recipe.variant import Variant
from relex_merge.trajectory.statistics import SeriesStatistics
from relex_merge.weights.source import Read
from tests.support.models import Series, make_series


@pytest.fixture(scope="module")
def prepared(series: Series) -> Prepared:
    return prepare(load_recipe(series.recipe()), [Variant()], MergeOptions())


def first(model: ModelPlan, T: int) -> ModelPlan:
    """The plan of the first T checkpoints."""
    tensors = tuple(replace(t, stored=t.stored[: T + 1]) for t in model.tensors)
    sources, steps = model.sources[: T + 1], model.steps[:T]
    return replace(model, sources=sources, steps=steps, tensors=tensors, last=T - 1)


def close(one: SeriesStatistics, other: SeriesStatistics, rtol: float) -> None:
    assert list(one.tensors) == list(other.tensors)
    for name, t in one.tensors.items():
        np.testing.assert_allclose(t.gram, other.tensors[name].gram, rtol=rtol)
        assert t.moved == other.tensors[name].moved
        assert t.base_squared_norm == pytest.approx(other.tensors[name].base_squared_norm)


def test_a_small_model_is_held_whole_and_its_g_is_exact(prepared: Prepared) -> None:
    found = SampleMemory(10**6).grow(prepared.plan, {}, "mark")
    assert not found.sampled
    assert found.fingerprint == "mark"
    whole = form_grams(prepared, available(MergeOptions(), None), lambda _: lambda _: None)
    close(found, whole, 1e-9)


@pytest.mark.parametrize("numbers", [3000, 10**6])
def test_checkpoint_by_checkpoint_is_as_all_at_once(prepared: Prepared, numbers: int) -> None:
    growing, at_once = SampleMemory(numbers), SampleMemory(numbers)
    for T in (2, 3, 5):
        found = growing.grow(first(prepared.plan, T), {}, "")
    close(found, at_once.grow(prepared.plan, {}, ""), 1e-5)
    assert found.sampled == (numbers == 3000)
    # One is forgotten that is no longer there, as after a restart from an earlier step.
    close(
        growing.grow(first(prepared.plan, 3), {}, ""),
        SampleMemory(numbers).grow(first(prepared.plan, 3), {}, ""),
        1e-5,
    )


def test_live_numbers_are_taken_in_place_of_the_files(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, memory = prepared.plan, SampleMemory(3000)
    memory.grow(first(model, 4), {}, "")
    wanted = memory.wanted(model, 5)
    last = model.sources[5]
    live = {}
    for one in wanted:
        raw = torch.empty(last.tensors[one.name].nbytes, dtype=torch.uint8)
        last.read([Read(one.name, 0, raw.numpy().data)])
        flat = raw.view(last.tensors[one.name].dtype)
        live[one.name] = torch.cat([flat[a:b] for a, b in one.ranges]).double()
        assert len(live[one.name]) == one.count

    def refuse(reads: Any) -> None:
        assert not reads

    monkeypatch.setattr(last, "read", refuse)
    found = memory.grow(model, live, "")
    monkeypatch.undo()
    close(found, SampleMemory(3000).grow(model, {}, ""), 1e-5)


def test_nan_names_tensor_and_checkpoint(tmp_path: Path) -> None:
    recipe = make_series(tmp_path, scale=float("nan")).recipe()
    model = prepare(load_recipe(recipe), [Variant()], MergeOptions()).plan
    with pytest.raises(RelexError, match=r"step_1: .* holds NaN or Inf"):
        SampleMemory(3000).grow(model, {}, "")
