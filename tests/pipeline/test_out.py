"""What OUT may be, and what it must not take with it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import relex_merge
from tests.support.models import Series, make_series, read_weights, write_recipe
from tests.support.terminal import Command

pytestmark = pytest.mark.usefixtures("no_figure")


def refused(relex: Command, series: Series, out: Path, recipe: Path) -> str:
    """The message; nothing may have been read."""
    done = relex("run", "--yes", write_recipe(recipe, series.recipe()), out, "--force")
    assert done.code == 1, done.err
    assert "Traceback" not in done.err
    assert "reading checkpoints" not in done.err
    return done.err


def test_a_fifo_and_a_device_are_refused_before_the_work(
    relex: Command, series: Series, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for out in (fifo, Path("/dev/null")):
        assert f"{out} is no folder" in refused(relex, series, out, tmp_path / "r.yml")
    assert fifo.is_fifo()


def test_a_link_that_leads_in_circles(relex: Command, series: Series, tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(tmp_path / "pool")
    (tmp_path / "pool").symlink_to(loop)
    for out in (loop, loop / "out"):
        assert "loop" in refused(relex, series, out, tmp_path / "r.yml")


@pytest.mark.parametrize("length", [250, 300])
def test_a_name_that_is_too_long(
    length: int, relex: Command, series: Series, tmp_path: Path
) -> None:
    for out in (tmp_path / ("x" * length), tmp_path / ("x" * length) / "out"):
        if length < 255 and out.name == "out":
            continue
        message = refused(relex, series, out, tmp_path / "r.yml")
        assert "File name too long" in message
        assert "choose a shorter name" in message


def test_a_parent_that_takes_nothing(relex: Command, series: Series, tmp_path: Path) -> None:
    for out in (Path("/sys/relex-out"), Path("/sys/relex/out")):
        message = refused(relex, series, out, tmp_path / "r.yml")
        assert "cannot write /sys/" in message
        assert "choose another place" in message


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("cannot mount a file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=False, capture_output=True)


def test_a_mount_point_and_a_read_only_disk(
    relex: Command, series: Series, mounted: Path, tmp_path: Path
) -> None:
    message = refused(relex, series, mounted, tmp_path / "r.yml")
    assert "is a mount point; name a folder below it" in message
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True, capture_output=True)
    message = refused(relex, series, mounted / "out", tmp_path / "r.yml")
    assert "Read-only file system" in message


def test_force_spares_what_a_checkpoint_only_links_to(relex: Command, tmp_path: Path) -> None:
    series = make_series(tmp_path / "run", steps=(1, 2, 3))
    out = tmp_path / "out"
    out.mkdir()
    weights = series.checkpoints[1] / "model.safetensors"
    weights.rename(out / "model.safetensors")
    weights.symlink_to(out / "model.safetensors")
    message = refused(relex, series, out, tmp_path / "r.yml")
    assert str(out / "model.safetensors") in message
    assert str(weights) in message
    # A link may also pass through OUT on its way.
    (out / "model.safetensors").rename(tmp_path / "elsewhere")
    (out / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    assert str(out / "model.safetensors") in refused(relex, series, out, tmp_path / "r.yml")
    assert weights.resolve().is_file()


def test_a_hard_link_outlives_the_name_that_force_replaces(tmp_path: Path) -> None:
    series = make_series(tmp_path / "run", steps=(1, 2, 3))
    out = tmp_path / "out"
    out.mkdir()
    weights = series.checkpoints[1] / "model.safetensors"
    (out / "model.safetensors").hardlink_to(weights)
    relex_merge.extrapolate(series.recipe(), out, force=True, quiet=True)
    left = read_weights(series.checkpoints[1])
    assert all(torch.equal(left[name], w) for name, w in series.states[1].items())
