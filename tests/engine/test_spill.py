"""Tensors too large for the memory budget: from the Hub once, from the scratch disk after that."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import relex_merge
from relex_merge.api import forecast
from relex_merge.engine.spill import SpillingSource
from relex_merge.errors import RelexError
from relex_merge.weights.safetensors import SafetensorsSource
from relex_merge.weights.source import Read, Source
from tests.fake_hub import Fault, Hub
from tests.support.models import Series, make_series
from tests.support.streams import BASE, RUN, WEIGHTS, stored, weights

STEPS = tuple(range(1, 10))
BUDGET = 19_000_000  # bytes; the embedding of all ten models takes 21 MB


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """Nine bfloat16 checkpoints whose embedding has 1 M numbers."""
    return make_series(
        tmp_path_factory.mktemp("wide"),
        steps=STEPS,
        dtype=torch.bfloat16,
        hidden_size=64,
        vocab_size=16_384,
    )


@pytest.fixture
def recipe(hub: Hub, wide: Series) -> dict[str, Any]:
    """Its recipe, on the Hub."""
    hub.commit_folder(BASE, wide.base)
    for step, folder in zip(wide.steps, wide.checkpoints, strict=True):
        hub.commit_folder(RUN, folder, branch=f"step_{step}")
    return {
        "merge_method": "relex",
        "base_model": BASE,
        "models": [{"model": f"{RUN}@step_{step}"} for step in STEPS],
        "parameters": {"target_step": 20},
    }


def scratch(root: Path) -> int:
    """Bytes of scratch files below a folder, some of which may be going away just now."""
    total = 0
    for folder, _, files in os.walk(root):
        for file in files if Path(folder).parent.name == "scratch" else ():
            with contextlib.suppress(FileNotFoundError):
                total += Path(folder, file).stat().st_size
    return total


def test_what_is_used_twice_crosses_the_network_once(
    hub: Hub, wide: Series, recipe: dict[str, Any], tmp_path: Path
) -> None:
    how: dict[str, Any] = {"memory_budget": BUDGET, "stream": True}
    assert "a second one for 1 tensors" in forecast(recipe, tmp_path / "out", **how)
    hub.log.clear()
    sizes: list[int] = []

    def look() -> None:
        sizes.append(scratch(tmp_path))

    hub.faults.add(Fault(WEIGHTS, times=None, action=look))
    relex_merge.extrapolate(recipe, tmp_path / "out", quiet=True, **how)
    assert hub.log.bytes_sent(WEIGHTS) == stored(wide)
    embedding = sum(
        state["model.embed_tokens.weight"].nbytes for state in (wide.base_state, *wide.states)
    )
    assert embedding / 2 < max(sizes) <= embedding
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    relex_merge.extrapolate(wide.recipe(20), tmp_path / "local", quiet=True)
    assert weights(tmp_path / "out") == weights(tmp_path / "local")


def test_a_run_that_fails_leaves_no_scratch_behind(
    hub: Hub, recipe: dict[str, Any], tmp_path: Path, no_waiting: list[float]
) -> None:
    found: list[int] = []

    def look() -> None:
        found.append(scratch(tmp_path))

    hub.faults.add(Fault(WEIGHTS, after=45, times=None, status=503, action=look))
    with pytest.raises(RelexError, match="status 503"):
        relex_merge.extrapolate(
            recipe, tmp_path / "out", memory_budget=BUDGET, stream=True, quiet=True
        )
    assert max(found) > 0
    assert not list(tmp_path.iterdir())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file({"large": torch.arange(1000), "small": torch.arange(10)}, path)
    return path


@pytest.fixture
def source(file: Path) -> Source:
    return SafetensorsSource(file.parent, "the model", [file.name])


def read(source: Source, name: str, start: int, count: int) -> list[int]:
    buffer = bytearray(8 * count)
    source.read([Read(name, 8 * start, memoryview(buffer))])
    return torch.frombuffer(buffer, dtype=torch.int64).tolist()


def test_the_second_reading_comes_from_the_disk_and_clears_it(
    source: Source, file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    spilling = SpillingSource(source, frozenset(["large"]), folder)
    first = [read(spilling, "large", start, 500) for start in (0, 500)]
    assert first == [list(range(500)), list(range(500, 1000))]
    assert len(list(folder.iterdir())) == 2
    assert read(spilling, "small", 0, 10) == list(range(10))
    assert len(list(folder.iterdir())) == 2
    file.unlink()
    assert [read(spilling, "large", start, 500) for start in (0, 500)] == first
    assert not list(folder.iterdir())


def test_a_reading_that_failed_is_not_taken_for_kept(
    source: Source, file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    spilling = SpillingSource(source, frozenset(["large"]), folder)
    file.unlink()
    for _ in range(2):
        with pytest.raises(RelexError, match="vanished"):
            read(spilling, "large", 0, 500)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_scratch_disk_is_told_with_the_remedy(source: Source, tmp_path: Path) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    (folder / "0").symlink_to("/dev/full")
    spilling = SpillingSource(source, frozenset(["large"]), folder)
    with pytest.raises(RelexError, match=r"No space left.*free some room.*--memory-budget"):
        read(spilling, "large", 0, 500)
