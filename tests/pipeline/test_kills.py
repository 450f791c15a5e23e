"""Wherever a run is killed, OUT is the old model or the new one, each whole, and nothing else."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest

from relex_merge.errors import RelexError
from relex_merge.pipeline.staging import Staging, staging
from tests.support.kill_points import dies_at

SHARDS = 2
OLD = {"model.safetensors": "old", "config.json": "old", "sub/README.md": "old"}


def made_by(run: str) -> dict[str, str]:
    shards = {f"model-{i}.safetensors": run for i in range(SHARDS)}
    return {**shards, "config.json": run, "README.md": run}


def write(run: str, out: Path, *, force: bool) -> None:
    """What every writer does, in small: begin, shards, texts, publish."""
    with staging(out, force, command=[run, force]) as stage:
        if stage.ended:
            return
        stage.begin({"run": run})
        for i in range(SHARDS):
            if i not in stage.finished:
                write_shard(run, stage, i)
        for name in ("config.json", "README.md"):
            (stage.content / name).write_text(run)
        stage.publish(force)


def write_shard(run: str, stage: Staging, index: int) -> None:
    files = [stage.content / f"model-{index}.safetensors", stage.folder / f"shard-{index}.x"]
    for file in files:
        file.write_text(run)
    stage.finish_shard(index, files)


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def put_old(out: Path) -> None:
    for name, text in OLD.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text)


@pytest.mark.parametrize(
    ("over", "then"),
    [
        ("an old model", "the same"),
        ("an old model", "without force"),
        ("an old model", "another"),
        ("an old model, by two renames", "the same"),
        ("an old model, by two renames", "another"),
        ("an output of the same command", "the same"),
        ("nothing", "the same"),
    ],
)
def test_killed_at_every_step_and_repeated(
    over: str, then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    force = over != "nothing"
    new, states = made_by("new"), set()
    in_one_step = force and "renames" not in over
    if "renames" in over:  # as on a system that cannot exchange two folders
        monkeypatch.setattr("relex_merge.pipeline.staging.exchange", lambda *_: False)
    for n in itertools.count(1):
        work = tmp_path / str(n)
        work.mkdir()
        out = work / "out"
        if over == "an output of the same command":
            write("new", out, force=False)
            (out / "notes.txt").write_text("old")
        elif force:
            put_old(out)
        old = contents(out)
        died = dies_at(n, lambda: write("new", out, force=force), work)  # noqa: B023  # at once
        states.add("new" if contents(out) == new else "old" if contents(out) == old else "none")
        assert contents(out) in ((old, new) if in_one_step else (old, new, {}))
        if then == "another":
            write("other", out, force=True)
            assert contents(out) == made_by("other")
        else:
            before = contents(out)
            try:
                write("new", out, force=force and then == "the same")
            except RelexError as error:
                assert "is not empty" in str(error)  # noqa: PT017  # both outcomes are right
                assert contents(out) == (before or new)
            else:
                assert contents(out) == new
            write("new", out, force=True)
            assert contents(out) == new
        assert {path.name for path in work.iterdir()} == {"out"}
        shutil.rmtree(work)
        if not died:
            break
    assert n > 25
    assert states >= {"old", "new"}


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("over", ["an old model", "nothing"])
def test_ctrl_c_at_every_step(over: str, tmp_path: Path) -> None:
    """The process itself ends what it has begun, or takes it back."""
    force = over == "an old model"
    new, states = made_by("new"), set()
    for n in itertools.count(1):
        work = tmp_path / str(n)
        work.mkdir()
        out = work / "out"
        if force:
            put_old(out)
        died = dies_at(n, lambda: write("new", out, force=force), work, interrupt)  # noqa: B023
        states.add("new" if contents(out) == new else "before")
        assert contents(out) in (new, OLD if force else {})
        kept = {path.name for path in work.iterdir()} - {"out"}
        assert not kept or contents(out) != new
        write("new", out, force=True)
        assert contents(out) == new
        assert {path.name for path in work.iterdir()} == {"out"}
        shutil.rmtree(work)
        if not died:
            break
    assert states == {"before", "new"}


def test_a_repeated_command_knows_its_own_result(tmp_path: Path) -> None:
    """Killed after the renaming, it needs no --force and makes nothing again."""
    out = tmp_path / "out"
    known = 0
    for n in itertools.count(1):
        died = dies_at(n, lambda: write("new", out, force=False), tmp_path)
        if not died:
            break
        before = out.stat().st_ino if out.is_dir() else None
        try:
            write("new", out, force=False)
        except RelexError:
            assert [path.name for path in tmp_path.iterdir()] == ["out"]  # all was done
        else:
            known += before is not None
        if before is not None:
            assert out.stat().st_ino == before
        assert contents(out) == made_by("new")
        shutil.rmtree(out)
    assert known >= 3


def begun(out: Path, shards: tuple[int, ...]) -> tuple[int, ...]:
    """Begin the run, make some shards and fail; returns what was finished before."""
    with pytest.raises(RuntimeError, match="enough"), staging(out, False) as stage:  # noqa: PT012
        stage.begin({"run": "new"})
        found = stage.finished
        for i in shards:
            write_shard("new", stage, i)
        raise RuntimeError("enough")
    return found


def test_a_shard_whose_files_are_gone_is_made_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    partial = tmp_path / ".out.relex-partial"
    begun(out, (0, 1))
    for gone in ("shard-0.x", "content/model-0.safetensors"):
        (partial / gone).unlink()
        assert begun(out, (0,)) == (1,)
    assert set(json.loads((partial / "manifest.json").read_text())["finished"]) == {"0", "1"}
