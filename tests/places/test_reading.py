"""Checkpoints in an object store: the same bytes as from the disk, read in ranges."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest

import relex_merge
from relex_merge.checkpoints.files import GRAM
from relex_merge.errors import RelexError
from relex_merge.places import errors, ranges
from relex_merge.places.ranges import Transfers
from tests.support.adapters import make_adapters
from tests.support.models import Series, make_series, write_recipe
from tests.support.object_store import Store
from tests.support.refusals import sliced
from tests.support.terminal import Command

pytestmark = pytest.mark.usefixtures("no_figure")


def _weights(out: Path) -> dict[str, bytes]:
    files = (path for path in out.glob("*.safetensors") if path.name != GRAM)  # it names its source
    return {path.name: path.read_bytes() for path in files}


def _run(recipe: dict[str, Any], out: Path, **options: Any) -> dict[str, bytes]:
    relex_merge.extrapolate(recipe, out, quiet=True, **options)
    return _weights(out)


def test_a_series_in_a_store_makes_the_same_model_as_on_the_disk(
    store: Store, series: Series, tmp_path: Path, places_cache: Path
) -> None:
    store.put_series(series)
    found = _run(store.recipe(series), tmp_path / "far")
    assert found == _run(series.recipe(), tmp_path / "near")
    assert not list(places_cache.rglob("*.safetensors"))
    kept = {path.name for path in (tmp_path / "far").iterdir()}
    assert kept == {path.name for path in (tmp_path / "near").iterdir()}


def test_shards_with_an_index_are_read_too(memory: Store, tmp_path: Path) -> None:
    series = make_series(tmp_path / "series", shards=3)
    memory.put_series(series)
    near = _run(series.recipe(), tmp_path / "near")
    assert _run(memory.recipe(series), tmp_path / "far") == near
    assert _run(memory.recipe(series), tmp_path / "cached", stream=False) == near


def test_brace_ranges_name_checkpoints_in_a_store(
    s3: Store, series: Series, relex: Command, tmp_path: Path
) -> None:
    s3.put(series.base, "base")
    for number, folder in enumerate(series.checkpoints, start=1):
        s3.put(folder, f"step_{number:02d}")
    recipe = {
        "merge_method": "relex",
        "base_model": f"{s3.address}/base",
        "models": [{"model": f"{s3.address}/step_{{01..05}}"}],
        "parameters": {"target_step": 9},
    }
    done = relex("inspect", write_recipe(tmp_path / "recipe.yml", recipe), "--quiet")
    assert done.code == 0, done.err
    report = relex_merge.inspect(recipe, quiet=True)
    assert [entry["step"] for entry in report["checkpoints"]] == [1, 2, 3, 4, 5]
    assert report["checkpoints"][0]["reference"] == f"{s3.address}/step_01"


def test_a_base_on_the_disk_and_checkpoints_in_a_store(
    memory: Store, series: Series, tmp_path: Path
) -> None:
    memory.put_series(series)
    recipe = {**memory.recipe(series), "base_model": series.base.as_uri()}
    assert _run(recipe, tmp_path / "far") == _run(series.recipe(), tmp_path / "near")


def test_adapters_in_a_store(memory: Store, tmp_path: Path) -> None:
    series = make_adapters(tmp_path / "lora")
    memory.put_series(series)
    near, far = series.recipe(), memory.recipe(series)
    assert _run(far, tmp_path / "far") == _run(near, tmp_path / "near")
    model = _run(far, tmp_path / "far-model", form="model")
    assert model == _run(near, tmp_path / "near-model", form="model")


def test_a_dry_run_says_where_the_bytes_come_from(
    memory: Store, series: Series, relex: Command, tmp_path: Path, places_cache: Path
) -> None:
    memory.put_series(series)
    recipe = write_recipe(tmp_path / "recipe.yml", memory.recipe(series))
    done = relex("run", "--yes", recipe, tmp_path / "out", "--dry-run")
    assert f"from {memory.address}" in done.out
    assert not (tmp_path / "out").exists()
    assert not list(places_cache.rglob("*.safetensors"))


class Flaky:
    """A file system of which every other range fails at first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: Store, error: Exception) -> None:
        self.failed = 0
        self._seen: set[tuple[str, int]] = set()
        self._error = error
        kind = type(store.files)
        self._ranges = kind.cat_file

        def cat_file(files: Any, path: str, start: int, end: int) -> Any:
            return self._cat(files, path, start, end)

        monkeypatch.setattr(kind, "cat_file", cat_file)

    def _cat(self, files: Any, path: str, start: int, end: int) -> Any:
        if (path, start) not in self._seen:
            self._seen.add((path, start))
            self.failed += 1
            raise self._error
        return self._ranges(files, path, start=start, end=end)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "WAITS", (0.0, 0.0, 0.0))


@pytest.mark.usefixtures("no_pauses")
def test_ranges_that_fail_are_asked_for_again(
    memory: Store, series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.put_series(series)
    flaky = Flaky(monkeypatch, memory, ConnectionResetError("reset by peer"))
    assert _run(memory.recipe(series), tmp_path / "far") == _run(series.recipe(), tmp_path / "near")
    assert flaky.failed > 10


@pytest.mark.usefixtures("no_pauses")
def test_a_store_that_stays_away_ends_the_run(
    memory: Store, series: Series, relex: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.put_series(series)
    recipe = write_recipe(tmp_path / "recipe.yml", memory.recipe(series))

    def away(*_: object, **__: object) -> bytes:
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(type(memory.files), "cat_file", away)
    done = relex("run", "--yes", recipe, tmp_path / "out", "--quiet")
    assert done.code == 1
    assert len(done.err.splitlines()) == 1, done.err
    assert "model.safetensors cannot be read" in done.err
    assert "reset by peer" in done.err
    assert not (tmp_path / "out").exists()


def test_a_file_that_changes_during_a_run_is_named(
    store: Store, series: Series, relex: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_series(series)
    recipe = write_recipe(tmp_path / "recipe.yml", store.recipe(series))
    changed = store.path("run", "checkpoint-4", "model.safetensors")
    read = Transfers.read
    asked: list[str] = []
    headers = 2 * (1 + len(series.steps))  # requests before the first number is read

    def rewritten(self: Transfers, file: Any, spans: Any) -> None:
        read(self, file, spans)
        asked.append(file.name)
        if len(asked) == headers + 1:
            data = store.files.cat_file(changed)
            store.files.pipe_file(changed, data[:-1] + bytes([data[-1] ^ 1]))

    monkeypatch.setattr(ranges.Transfers, "read", rewritten)
    done = relex("run", "--yes", recipe, tmp_path / "out", "--quiet")
    assert done.code == 1
    assert f"{store.address}/run/checkpoint-4/model.safetensors changed during the run" in done.err
    assert not (tmp_path / "out").exists()


def test_a_truncated_object_is_named(
    s3: Store, series: Series, relex: Command, tmp_path: Path
) -> None:
    s3.put_series(series)
    path = s3.path("run", "checkpoint-7", "model.safetensors")
    s3.files.pipe_file(path, s3.files.cat_file(path)[:-100])
    recipe = write_recipe(tmp_path / "recipe.yml", s3.recipe(series))
    done = relex("run", "--yes", recipe, tmp_path / "out", "--quiet")
    assert done.code == 1
    assert f"{s3.address}/run/checkpoint-7/model.safetensors is truncated" in done.err


def test_pickles_are_brought_here_first(memory: Store, tmp_path: Path, places_cache: Path) -> None:
    import torch

    series = make_series(tmp_path / "series")
    for folder, state in zip(series.checkpoints, series.states, strict=True):
        (folder / "model.safetensors").unlink()
        torch.save(state, folder / "pytorch_model.bin")
    memory.put_series(series)
    assert _run(memory.recipe(series), tmp_path / "far") == _run(series.recipe(), tmp_path / "near")
    assert len(list(places_cache.rglob("pytorch_model.bin"))) == len(series.steps)


def test_mergekits_own_path_sees_folders(memory: Store, series: Series, tmp_path: Path) -> None:
    memory.put_series(series)
    assert _run(sliced(memory.recipe(series)), tmp_path / "far") == (
        _run(sliced(series.recipe()), tmp_path / "near")
    )


def test_other_merge_methods_see_folders(memory: Store, series: Series, tmp_path: Path) -> None:
    memory.put_series(series)
    made = {}
    for name, recipe in (("far", memory.recipe(series)), ("near", series.recipe())):
        linear = {"merge_method": "linear", "models": recipe["models"], "dtype": "float32"}
        linear["parameters"] = {"weight": 1.0}
        made[name] = _run(linear, tmp_path / name)
    assert made["far"] == made["near"]
    assert memory.address in (tmp_path / "far/mergekit_config.yml").read_text()


def test_a_full_disk_is_told_and_leaves_no_part_of_a_file(
    memory: Store, series: Series, places_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.put_series(series)

    def full(files: Any, there: str, here: str, **_: Any) -> None:
        Path(here).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(type(memory.files), "get_file", full)
    with pytest.raises(RelexError, match=r"cannot write .*\.json: No space left.*free some room"):
        relex_merge.inspect(memory.recipe(series), quiet=True)
    deadline = time.monotonic() + 10  # copies that were under way are not waited for by the run
    while left := [path for path in places_cache.rglob("*") if path.is_file()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
