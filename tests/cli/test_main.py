"""Exit codes and messages of the command itself."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from relex_merge.cli import main as command
from tests.support.models import Series, make_series, write_recipe
from tests.support.terminal import Command, interruptible, outcome, start

pytestmark = pytest.mark.usefixtures("no_figure")


def test_v_shows_where_it_happened(relex: Command, series: Series, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yml", series.recipe(rank=9))
    done = relex("run", "--yes", recipe, tmp_path / "out", "-v")
    assert done.code == 1
    assert "Traceback" in done.err
    assert "parameters.py" in done.err
    assert "error: rank is 9" in done.err


def test_an_unexpected_error_says_where_it_was(
    relex: Command, series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from relex_merge.pipeline import run

    monkeypatch.setattr(run, "writer_for", lambda *_: 1 / 0)
    recipe = write_recipe(tmp_path / "r.yml", series.recipe())
    done = relex("run", "--yes", recipe, tmp_path / "out", "--quiet")
    assert done.code == 1
    assert "error: ZeroDivisionError: division by zero, at " in done.err
    assert "relex_merge/pipeline/run.py:" in done.err
    assert "Traceback" not in done.err


def test_an_interruption_that_comes_as_another_error_is_told_as_one(
    relex: Command, series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader of torch was seen to turn a KeyboardInterrupt into a ValueError."""
    from relex_merge.pipeline import run

    def interrupted(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape") from None

    monkeypatch.setattr(run, "writer_for", interrupted)
    recipe = write_recipe(tmp_path / "r.yml", series.recipe())
    with interruptible():
        done = relex("run", "--yes", recipe, tmp_path / "out", "--quiet")
    assert done.code == 1
    assert done.err == "interrupted; nothing half done is left at OUT\n"


def test_sigterm_cleans_up_says_what_is_kept_and_exits_with_143(
    relex: Command, tmp_path: Path
) -> None:
    series = make_series(
        tmp_path / "run", steps=(1, 2, 3), num_hidden_layers=8, vocab_size=4096, hidden_size=64
    )
    recipe = write_recipe(tmp_path / "r.yml", series.recipe())
    work = tmp_path / "work"
    work.mkdir()
    arguments = [
        "run",
        "--yes",
        recipe,
        work / "out",
        "--out-shard-size",
        "100K",
        "--quiet",
        "--no-figure",
    ]
    process = start(*arguments)
    partial = work / ".out.relex-partial"
    while process.poll() is None and not (partial / "shard-2.safetensors").exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    done = outcome(process)
    assert done.code == command.TERMINATED == 143
    assert "terminated; nothing half done is left at OUT" in done.err
    assert f"kept in {partial}" in done.err
    assert f"rm -r {partial}" in done.err
    assert [path.name for path in work.iterdir()] == [partial.name]
    again = relex(*arguments)
    assert again.code == 0, again.err
    assert [path.name for path in work.iterdir()] == ["out"]
