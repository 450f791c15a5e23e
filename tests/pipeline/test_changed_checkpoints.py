"""Checkpoints that are written again, or deleted, while a run reads them: never a mixture."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mergekit.merge
import pytest
import safetensors.torch
import torch
import tqdm
from mergekit.options import MergeOptions

import relex_merge
from relex_merge.errors import RelexError
from tests.support.adapters import make_adapters
from tests.support.models import make_series
from tests.support.refusals import sliced

pytestmark = pytest.mark.usefixtures("no_figure")
STEPS = (1, 2, 3)
KINDS = ("safetensors", "shards", "bin", "adapters", "bin adapters")
Hook = Callable[[Callable[[], None]], None]


def to_bin(file: Path) -> None:
    """Store the same tensors as torch does."""
    stem = "pytorch_model" if file.name == "model.safetensors" else file.stem
    torch.save(safetensors.torch.load_file(file), file.with_name(f"{stem}.bin"))
    file.unlink()


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each kind, with ``base`` and the checkpoints in it."""
    root = tmp_path_factory.mktemp("kinds")
    make_series(root / "safetensors", steps=STEPS)
    make_series(root / "shards", steps=STEPS, shards=2)
    make_adapters(root / "adapters", steps=STEPS)
    for kind, copy, file in (
        ("safetensors", "bin", "model.safetensors"),
        ("adapters", "bin adapters", "adapter_model.safetensors"),
    ):
        shutil.copytree(root / kind, root / copy)
        for path in (root / copy).glob(f"*/{file}"):
            to_bin(path)
    return {kind: root / kind for kind in KINDS}


@pytest.fixture(params=KINDS)
def folder(request: pytest.FixtureRequest, originals: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of one of them that the test may spoil."""
    return Path(shutil.copytree(originals[str(request.param)], tmp_path / "series"))


def checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name != "base")


def recipe(folder: Path, **parameters: Any) -> dict[str, Any]:
    return {
        "merge_method": "relex",
        "base_model": str(folder / "base"),
        "models": [{"model": str(checkpoint)} for checkpoint in checkpoints(folder)],
        "parameters": {"target_step": 20, **parameters},
    }


def write_again(*checkpoints: Path) -> None:
    """Give every weight another value, in files of the same size."""
    files = [
        file for c in checkpoints for end in ("safetensors", "bin") for file in c.glob(f"*.{end}")
    ]
    for file in files:
        size = file.stat().st_size
        if file.suffix == ".bin":
            torch.save({n: 1.01 * w for n, w in torch.load(file).items()}, file)
        else:
            state = {n: 1.01 * w for n, w in safetensors.torch.load(file.read_bytes()).items()}
            file.write_bytes(safetensors.torch.save(state, metadata={"format": "pt"}))
        assert file.stat().st_size == size
    assert len(files) >= len(checkpoints)


def run(folder: Path, out: Path, **how: Any) -> None:
    options = MergeOptions(out_shard_size=how.pop("shard", 2**30), num_threads=2)
    relex_merge.extrapolate(recipe(folder), out, options=options, quiet=True, **how)


def weights(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*model*.safetensors")}


@pytest.fixture
def at_first_read(monkeypatch: pytest.MonkeyPatch) -> Hook:
    """Do something once, when the progress bar hears of the first bytes."""

    def install(action: Callable[[], None]) -> None:
        waiting = [action]

        def update(bar: Any, nbytes: int) -> None:
            if waiting:
                waiting.pop()()

        monkeypatch.setattr(tqdm.tqdm, "update", update)

    return install


@pytest.fixture
def at_last_read(monkeypatch: pytest.MonkeyPatch) -> Hook:
    """Do something when the progress bar has heard of all bytes."""

    def install(action: Callable[[], None]) -> None:
        def update(bar: Any, nbytes: int) -> None:
            bar.n += nbytes
            if bar.n == bar.total:
                action()

        monkeypatch.setattr(tqdm.tqdm, "update", update)

    return install


@pytest.mark.parametrize("how", [{}, {"form": "model"}, {"form": "adapter"}], ids=str)
def test_written_again_during_a_run(
    how: dict[str, str], folder: Path, at_first_read: Hook, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    at_first_read(lambda: write_again(*checkpoints(folder)))
    with pytest.raises(RelexError, match="changed") as caught:
        run(folder, work / "out", **how)
    assert any(str(checkpoint) in str(caught.value) for checkpoint in checkpoints(folder))
    assert not work.exists()


def test_the_base_written_again_during_a_run(
    originals: dict[str, Path], at_first_read: Hook, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(originals["safetensors"], tmp_path / "series"))
    at_first_read(lambda: write_again(folder / "base"))
    with pytest.raises(RelexError, match=str(folder / "base/model.safetensors")):
        run(folder, tmp_path / "out")


def test_written_again_while_the_report_is_made(folder: Path, at_first_read: Hook) -> None:
    at_first_read(lambda: write_again(checkpoints(folder)[1]))
    with pytest.raises(RelexError, match=str(checkpoints(folder)[1])):
        relex_merge.inspect(recipe(folder), quiet=True)


def test_written_again_through_mergekits_own_path(
    originals: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(originals["shards"], tmp_path / "series"))
    merge = mergekit.merge.run_merge

    def merge_slowly(*arguments: Any) -> None:
        merge(*arguments)
        write_again(checkpoints(folder)[1])

    monkeypatch.setattr(mergekit.merge, "run_merge", merge_slowly)
    with pytest.raises(RelexError, match=str(checkpoints(folder)[1])):
        relex_merge.extrapolate(sliced(recipe(folder)), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_written_again_before_or_during_a_run_that_reuses_gram_matrices(
    folder: Path, at_first_read: Hook, tmp_path: Path
) -> None:
    run(folder, tmp_path / "first")
    run(folder, tmp_path / "second", reuse=tmp_path / "first")
    assert weights(tmp_path / "second") == weights(tmp_path / "first")
    at_first_read(lambda: write_again(checkpoints(folder)[1]))
    with pytest.raises(RelexError, match=str(checkpoints(folder)[1])):
        run(folder, tmp_path / "third", reuse=tmp_path / "first")
    with pytest.raises(RelexError, match="formed from other checkpoints"):
        run(folder, tmp_path / "third", reuse=tmp_path / "first")
    run(folder, tmp_path / "third")
    assert weights(tmp_path / "third") != weights(tmp_path / "first")


@pytest.mark.parametrize("kind", ["safetensors", "shards", "bin"])
def test_written_again_between_a_run_that_was_stopped_and_the_next(
    kind: str, originals: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(originals[kind], tmp_path / "series"))
    sync, synced = os.fsync, []

    def stop(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 4:
            raise KeyboardInterrupt
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", stop)
        with pytest.raises(KeyboardInterrupt):
            run(folder, tmp_path / "out", shard=2000)
    assert (tmp_path / ".out.relex-partial").exists()
    write_again(checkpoints(folder)[1])
    run(folder, tmp_path / "out", shard=2000)
    run(folder, tmp_path / "anew", shard=2000)
    assert weights(tmp_path / "out") == weights(tmp_path / "anew")
    assert len(weights(tmp_path / "out")) > 8


def test_deleted_after_their_last_read_they_are_not_missed(
    folder: Path, at_last_read: Hook, tmp_path: Path
) -> None:
    run(folder, tmp_path / "whole")

    def delete() -> None:
        for checkpoint in checkpoints(folder):
            shutil.rmtree(checkpoint)

    at_last_read(delete)
    run(folder, tmp_path / "out")
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


def test_deleted_before_their_last_read_they_are_named(
    originals: dict[str, Path], at_last_read: Hook, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(originals["adapters"], tmp_path / "series"))
    at_last_read(lambda: shutil.rmtree(folder / "checkpoint-2"))  # for G; a model needs them again
    with pytest.raises(RelexError, match=f"{folder / 'checkpoint-2'}.* vanished"):
        run(folder, tmp_path / "out", form="model")
