"""Gram matrices that grow: the same numbers as formed at once, whatever is held in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from relex_merge.engine.growing import SPAN, grow
from relex_merge.engine.plan import ModelPlan, TensorPlan
from relex_merge.errors import RelexError
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.statistics import SeriesStatistics
from relex_merge.weights.folder import open_folder
from relex_merge.weights.memory import Memory
from relex_merge.weights.source import TensorInfo

T, NUMEL = 5, 2 * SPAN + 12_345  # three spans, so that their sums are added


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A base and T checkpoints of one large tensor in bfloat16, far from 0 and close together."""
    noise = torch.Generator().manual_seed(0)
    weight = torch.randn(NUMEL, generator=noise)
    found = []
    for step in range(T + 1):
        folder = tmp_path_factory.mktemp(f"step_{step}")
        save_file({"w": weight.bfloat16()}, folder / "model.safetensors")
        weight = weight + 0.01 * torch.randn(NUMEL, generator=noise)
        found.append(folder)
    return found


def plan_of(folders: list[Path]) -> ModelPlan:
    sources = tuple(open_folder(folder, str(folder)) for folder in folders)
    info = TensorInfo(torch.bfloat16, (NUMEL,))
    stored = ("w",) * len(folders)
    tensor = TensorPlan("w", stored, torch.bfloat16, info, (Parameters(100),))
    return ModelPlan(sources, np.arange(1.0, len(folders)), 1, (tensor,))


def step_by_step(folders: list[Path], memory: Memory) -> SeriesStatistics:
    known = None
    for count in range(1, len(folders)):
        plan = plan_of(folders[: count + 1])
        known = SeriesStatistics(plan.steps, grow(plan, known, memory, workers=2))
    assert known is not None
    return known


def reference(folders: list[Path]) -> Array:
    plan = plan_of(folders)
    from relex_merge.weights.source import read_numbers

    rows = [read_numbers(s, "w", 0, NUMEL).double().numpy() for s in plan.sources]
    M = np.stack(rows[1:]) - rows[0]
    return np.asarray(M @ M.T)


def test_row_by_row_is_what_float64_gives(folders: list[Path]) -> None:
    found = step_by_step(folders, Memory(10**9)).tensors["w"]
    G = reference(folders)
    assert np.abs(found.gram - G).max() < 2e-6 * G.max()  # as in the engine: float32 in a chunk
    assert (found.gram == found.gram.T).all()
    assert found.numel == NUMEL
    assert 0 < found.moved <= NUMEL


@pytest.mark.parametrize("budget", [0, 3 * NUMEL * 2, 10**9])
def test_the_budget_changes_no_digit_and_is_kept(folders: list[Path], budget: int) -> None:
    memory = Memory(budget)
    found = step_by_step(folders, memory).tensors["w"]
    assert (found.gram == step_by_step(folders, Memory(10**9)).tensors["w"].gram).all()
    assert memory.used == min(budget, (T + 1) * NUMEL * 2)


def test_several_that_arrive_together_are_taken_in_at_once(folders: list[Path]) -> None:
    plan = plan_of(folders)
    at_once = grow(plan, None, Memory(0), workers=2)["w"]
    G = reference(folders)
    assert np.abs(at_once.gram - G).max() < 2e-6 * G.max()  # as in the engine: float32 in a chunk
    assert (at_once.gram == at_once.gram.T).all()


def test_a_known_matrix_that_is_not_symmetric_grows_into_one_that_is(
    folders: list[Path],
) -> None:
    plan = plan_of(folders[:4])
    known = grow(plan, None, Memory(0), workers=2)["w"]
    skewed = np.tril(known.gram) + np.triu(known.gram, 1) * (
        1 + 1e-7
    )  # as float32 products left it
    earlier = SeriesStatistics(plan.steps, {"w": replace(known, gram=skewed)})
    found = grow(plan_of(folders), earlier, Memory(0), workers=2)["w"].gram
    assert np.array_equal(found, found.T)
    np.testing.assert_allclose(found[:3, :3], known.gram, rtol=1e-7)


def test_a_checkpoint_with_nan_is_named(folders: list[Path], tmp_path: Path) -> None:
    broken = torch.ones(NUMEL, dtype=torch.bfloat16)
    broken[NUMEL - 1] = float("nan")
    save_file({"w": broken}, tmp_path / "model.safetensors")
    with pytest.raises(RelexError, match=f"{tmp_path}: w holds NaN"):
        grow(plan_of([*folders[:3], tmp_path]), None, Memory(0), workers=2)
