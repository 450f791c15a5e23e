"""Full disks, limits and Ctrl-C: one message, and nothing is left."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fake_hub import Fault, Hub
from tests.support.models import Series, write_recipe
from tests.support.refusals import Refuse, sliced
from tests.support.small_disk import small_disk
from tests.support.terminal import COMMAND, Command, outcome, start

pytestmark = pytest.mark.usefixtures("no_figure")


Mount = Callable[[int], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a file system of so many bytes; needs root."""
    with ExitStack() as stack:

        def at_tmp_path(size: int) -> Path:
            try:
                return stack.enter_context(small_disk(tmp_path / "disk", size))
            except PermissionError as reason:
                pytest.skip(str(reason))

        yield at_tmp_path


@pytest.mark.parametrize("how", ["too small from the start", "full in the middle"])
def test_a_full_disk(
    how: str,
    relex: Command,
    mine: Series,
    tmp_path: Path,
    mount: Mount,
) -> None:
    weights = (mine.base / "model.safetensors").stat().st_size
    pages = -(-weights // 4096) * 4096
    disk = mount(pages // 2 if how.startswith("too") else pages + 4096)
    recipe = write_recipe(tmp_path / "r.yml", mine.recipe())
    done = relex("run", "--yes", recipe, disk / "out", "--quiet")
    assert done.code == 1
    assert str(disk) in done.err
    assert "free" in done.err
    assert "Traceback" not in done.err
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize("room", [4096, 12288, 1.1])
@pytest.mark.parametrize("method", ["relex", "linear"])
def test_a_full_disk_on_mergekits_own_path(
    method: str,
    room: float,
    relex: Command,
    mine: Series,
    tmp_path: Path,
    mount: Mount,
) -> None:
    """Whoever meets it: the writer of weights, of the configuration, or of the tokenizer."""
    weights = (mine.base / "model.safetensors").stat().st_size
    disk = mount(int(room) if room > 2 else int(room * weights))
    recipe = sliced(mine.recipe())
    if method == "linear":
        models = [{**entry, "parameters": {"weight": 1}} for entry in mine.recipe()["models"]]
        recipe = {"merge_method": "linear", "dtype": "float32", "models": models}
    done = relex("run", "--yes", write_recipe(tmp_path / "r.yml", recipe), disk / "out", "--quiet")
    assert done.code == 1
    message = next(line for line in done.err.splitlines() if line.startswith("error: "))
    assert message.startswith(f"error: cannot write {disk}")
    assert "free some room" in message
    assert list(disk.iterdir()) == []


def test_a_device_that_does_not_exist(refuse: Refuse, mine: Series) -> None:
    assert "--device tpux" in refuse(mine.recipe(), "--device", "tpux")


def test_a_limit_on_the_size_of_files(mine: Series, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yml", mine.recipe())
    work = tmp_path / "work"
    work.mkdir()
    command = f"ulimit -f 8; exec {COMMAND} run {recipe} {work / 'out'}"  # kilobytes
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "cannot write" in done.stderr
    assert list(work.iterdir()) == []


def test_ctrl_c(hub: Hub, mine: Series, tmp_path: Path) -> None:
    hub.commit_folder("org/base", mine.base)
    hub.faults.add(Fault("GET /cdn/", times=None, delay=90))
    recipe = write_recipe(tmp_path / "r.yml", {**mine.recipe(), "base_model": "org/base"})
    work = tmp_path / "work"
    work.mkdir()
    process = start("run", "--yes", recipe, work / "out")
    while process.poll() is None and not any("/cdn/" in e.path for e in hub.log.entries_now()):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    done = outcome(process)
    assert done.code == 1
    assert "interrupted" in done.err
    assert "Traceback" not in done.err
    assert list(work.iterdir()) == []


def test_a_folder_that_cannot_be_made(refuse: Refuse, relex: Command, mine: Series) -> None:
    recipe = write_recipe(mine.base.parent / "r.yml", mine.recipe())
    done = relex("run", "--yes", recipe, mine.base / "config.json" / "out")
    assert done.code == 1
    assert "config.json" in done.err
    assert "Traceback" not in done.err
