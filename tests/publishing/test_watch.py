"""``publish-series --watch``: a run is published while it is written, and nothing too early."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relex_merge.errors import RelexError
from relex_merge.publishing.publish_series import SeriesResult, publish_series
from relex_merge.publishing.readiness import Stillness
from relex_merge.publishing.wanted import Wanted
from tests.fake_hub import Fault, Hub
from tests.fake_hub.access import Token
from tests.support.local_runs import make_run
from tests.support.models import Series
from tests.support.terminal import outcome, start

REPO = "tester/series"
SETTLE, POLL = 0.2, 0.02
LAST = "trainer_state.json"


@pytest.fixture
def source(tmp_path: Path) -> Series:
    """Checkpoints from which a writer copies; one is not sharded, so that files are few."""
    return make_run(tmp_path / "source")[1]


@pytest.fixture
def folder(tmp_path: Path, source: Series) -> Path:
    """The run that is watched, with its first checkpoint written."""
    run = tmp_path / "run"
    shutil.copytree(source.checkpoints[0], run / "checkpoint-5")
    return run


def test_a_run_folder_may_be_a_symbolic_link(tmp_path: Path, folder: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder)
    found = Wanted(link).so_far()
    assert found is not None
    assert found.steps == [5]


def watch(folder: Path, **how: Any) -> SeriesResult:
    settings: dict[str, Any] = {"settle": SETTLE, "poll": POLL, "until_step": 10, **how}
    return publish_series(folder, REPO, watch=True, quiet=True, **settings)


def pause() -> None:
    """Long enough for many looks, and for a watcher that only waited to think all is written."""
    time.sleep(5 * SETTLE)


def in_the_middle_of(name: str) -> Callable[[Path, Path], Iterator[None]]:
    def write(source: Path, target: Path) -> Iterator[None]:
        target.mkdir()
        files = sorted(p.name for p in source.iterdir() if p.is_file())
        for file in sorted(files, key=lambda f: (f == LAST, f == name, f)):
            content = (source / file).read_bytes()
            with (target / file).open("wb") as stream:
                stream.write(content[: len(content) // 2])
                stream.flush()
                if file == name:
                    yield
                stream.write(content[len(content) // 2 :])

    return write


def before_the_trainers_last_file(source: Path, target: Path) -> Iterator[None]:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(LAST))
    yield
    shutil.copy(source / LAST, target / LAST)


def under_a_temporary_name(source: Path, target: Path) -> Iterator[None]:
    temporary = target.with_name(f"tmp-{target.name}")
    shutil.copytree(source, temporary)
    yield
    temporary.rename(target)


def with_room_made_first(source: Path, target: Path) -> Iterator[None]:
    """The header and the size are right from the beginning; numbers come a few at a time."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("model.safetensors"))
    weights = target / "model.safetensors"
    content = (source / weights.name).read_bytes()
    head = 8 + int.from_bytes(content[:8], "little")
    weights.write_bytes(content[:head] + bytes(len(content) - head))
    yield
    with weights.open("r+b", buffering=0) as stream:
        stream.seek(head)
        for start in range(head, len(content), len(content) // 40):
            stream.write(content[start : start + len(content) // 40])
            time.sleep(SETTLE / 10)


def beside_a_file_of_the_writers_own(source: Path, target: Path) -> Iterator[None]:
    shutil.copytree(source, target)
    (target / "model.safetensors.incomplete").touch()
    yield
    (target / "model.safetensors.incomplete").unlink()


WRITERS = {
    "middle of the weights": in_the_middle_of("model.safetensors"),
    "middle of the tokenizer": in_the_middle_of("tokenizer.json"),
    "middle of the config": in_the_middle_of("config.json"),
    "before the last file": before_the_trainers_last_file,
    "under a temporary name": under_a_temporary_name,
    "beside a file of its own": beside_a_file_of_the_writers_own,
}


class Writer(threading.Thread):
    """Writes checkpoint-10 and pauses on the way; ``whole`` when it is written."""

    def __init__(
        self, write: Callable[[Path, Path], Iterator[None]], source: Path, target: Path
    ) -> None:
        super().__init__()
        self._steps = write(source, target)
        self.whole = threading.Event()

    def run(self) -> None:
        for _ in self._steps:
            pause()
        self.whole.set()


def early(hub: Hub, writer: Writer) -> list[bool]:
    """What each request that would give the checkpoint away found: True for one that came early."""
    found: list[bool] = []
    look = r"POST .*/(commit|branch)/step_10"
    hub.faults.add(Fault(look, times=None, action=lambda: found.append(not writer.whole.is_set())))
    return found


@pytest.mark.parametrize("name", WRITERS)
def test_a_checkpoint_is_never_seen_before_it_is_whole(
    hub: Hub, hub_login: Token, folder: Path, source: Series, name: str
) -> None:
    writer = Writer(WRITERS[name], source.checkpoints[1], folder / "checkpoint-10")
    found = early(hub, writer)
    writer.start()
    result = watch(folder)
    writer.join()
    assert found
    assert not any(found)
    assert result.published == (5, 10)
    for step, checkpoint in ((5, source.checkpoints[0]), (10, source.checkpoints[1])):
        there = hub.files(REPO, f"step_{step}")
        assert there["model.safetensors"] == (checkpoint / "model.safetensors").read_bytes()
        assert there["tokenizer.json"] == (checkpoint / "tokenizer.json").read_bytes()
    assert "2 checkpoints of one run" in hub.files(REPO)["README.md"].decode()


def test_a_file_that_has_its_size_before_its_content_is_waited_for(
    hub: Hub, hub_login: Token, folder: Path, source: Series
) -> None:
    writer = Writer(with_room_made_first, source.checkpoints[1], folder / "checkpoint-10")
    writer.start()
    watch(folder, settle=5 * SETTLE + 1)
    writer.join()
    whole = (source.checkpoints[1] / "model.safetensors").read_bytes()
    assert hub.files(REPO, "step_10")["model.safetensors"] == whole


def shard_by_shard(source: Path, target: Path) -> Iterator[None]:
    """As save_pretrained writes: shards, then the index."""
    target.mkdir()
    names = sorted(p.name for p in source.iterdir() if p.is_file())
    for name in sorted(names, key=lambda n: (n == LAST, n.endswith(".index.json"), "model-" in n)):
        if "model" in name and "tokenizer" not in name:
            yield
        shutil.copy(source / name, target / name)


def index_first(source: Path, target: Path) -> Iterator[None]:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("model-00002*"))
    yield
    shutil.copy(source / "model-00002-of-00002.safetensors", target)


@pytest.mark.parametrize("write", [shard_by_shard, index_first])
def test_shards_are_waited_for_whatever_the_order(
    hub: Hub, hub_login: Token, tmp_path: Path, write: Callable[[Path, Path], Iterator[None]]
) -> None:
    folder, series = make_run(tmp_path, steps=(5, 10), shards=2)
    spare = tmp_path / "checkpoint-10"
    shutil.move(series.checkpoints[1], spare)
    (spare / LAST).unlink()  # so that nothing but the shards tells
    (series.checkpoints[0] / LAST).unlink()
    shutil.copytree(spare, folder / "checkpoint-12")  # nor is it the newest
    writer = Writer(write, spare, folder / "checkpoint-10")
    found = early(hub, writer)
    writer.start()
    watch(
        folder,
        until_step=None,
        stop=_when(
            lambda: (
                "step_10" in hub.repos[REPO].branches
                and "3 checkpoints" in str(hub.files(REPO).get("README.md"))
            )
        ),
    )
    writer.join()
    assert found
    assert not any(found)
    assert len([n for n in hub.files(REPO, "step_10") if n.endswith(".safetensors")]) == 2


def _when(reached: Callable[[], bool]) -> threading.Event:
    """Set when something has come true."""
    event = threading.Event()

    def wait() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if reached():
                    break
            except KeyError:
                pass
            time.sleep(0.05)
        event.set()

    threading.Thread(target=wait, daemon=True).start()
    return event


def test_the_watch_ends_with_the_last_step_of_the_run(
    hub: Hub, hub_login: Token, tmp_path: Path
) -> None:
    folder, _ = make_run(tmp_path, max_steps=15)
    result = watch(folder, until_step=None)
    assert result.published == (5, 10, 15)
    assert not result.waiting


def test_it_waits_for_the_first_checkpoint(
    hub: Hub, hub_login: Token, tmp_path: Path, source: Series
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    writer = Writer(under_a_temporary_name, source.checkpoints[1], run / "checkpoint-10")
    found = early(hub, writer)
    writer.start()
    assert watch(run, observe="10-20").published == (10,)
    writer.join()
    assert not any(found)


def test_a_checkpoint_that_is_removed_during_its_upload_is_passed_over(
    hub: Hub, hub_login: Token, folder: Path, source: Series
) -> None:
    def rotate() -> None:
        shutil.rmtree(folder / "checkpoint-5")
        shutil.copytree(source.checkpoints[1], folder / "checkpoint-10")

    hub.faults.add(Fault("PUT /lfs/", action=rotate))
    assert watch(folder).published == (10,)
    assert set(hub.heads(REPO)) == {"main", "step_10"}


def test_a_checkpoint_that_is_written_anew_during_its_upload_is_published_when_that_is_done(
    hub: Hub, hub_login: Token, folder: Path, source: Series
) -> None:
    """A resumed run saves the same step again: torn when it is hashed, whole a little later."""
    other = (source.checkpoints[1] / "model.safetensors").read_bytes()
    target = folder / "checkpoint-5" / "model.safetensors"

    def begin() -> None:
        target.write_bytes(other[: len(other) // 2] + bytes(len(other) - len(other) // 2))
        threading.Timer(SETTLE / 2, target.write_bytes, [other]).start()

    hub.faults.add(Fault("GET .*/refs", action=begin))
    watch(folder, until_step=5)
    assert hub.files(REPO, "step_5")["model.safetensors"] == other
    assert len(hub.requests("POST .*/commit/step_5")) == 1


def test_the_watch_outlives_a_failing_hub(
    hub: Hub, hub_login: Token, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relex_merge.publishing.watch.RETRY", POLL)
    hub.faults.add(Fault("POST .*/commit/", times=3, status=400, message="not now"))
    said: list[str] = []
    assert watch(folder, until_step=5, notify=said.append).published == (5,)
    assert len([line for line in said if "not now" in line]) == 1
    assert "step_5" in hub.heads(REPO)


def test_a_revision_with_other_content_ends_the_watch(
    hub: Hub, hub_login: Token, folder: Path
) -> None:
    hub.commit(REPO, {"config.json": "{}"}, branch="step_5")
    with pytest.raises(RelexError, match="other content"):
        watch(folder)


def test_a_folder_that_is_not_there_is_refused(hub: Hub, hub_login: Token, tmp_path: Path) -> None:
    with pytest.raises(RelexError, match="not a folder"):
        watch(tmp_path / "typo")
    assert not hub.requests()


def _start(folder: Path) -> subprocess.Popen[str]:
    return start("publish-series", folder, REPO, "--watch", "--settle", 0.2)


def test_ctrl_c_ends_the_watch_with_what_was_published(
    hub: Hub, hub_login: Token, folder: Path
) -> None:
    (folder / "checkpoint-7").mkdir()
    shutil.copy(folder / "checkpoint-5" / "config.json", folder / "checkpoint-7")
    process = _start(folder)
    _when(lambda: "README.md" in hub.files(REPO)).wait()
    process.send_signal(signal.SIGINT)
    done = outcome(process)
    assert done.code == 0, done.err
    assert done.out == f"{hub.url}/{REPO}: 1 published, 0 complete before\n"
    assert "stopped watching" in done.err
    assert "Traceback" not in done.err
    assert set(hub.heads(REPO)) == {"main", "step_5"}


def test_ctrl_c_during_an_upload_leaves_no_revision(
    hub: Hub, hub_login: Token, folder: Path
) -> None:
    uploading = threading.Event()
    hub.faults.add(Fault("PUT /lfs/", action=uploading.set, delay=5.0))
    process = _start(folder)
    assert uploading.wait(60)
    process.send_signal(signal.SIGINT)
    done = outcome(process)
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    assert set(hub.heads(REPO)) == {"main"}


def test_what_waits_is_told_at_the_end(hub: Hub, hub_login: Token, folder: Path) -> None:
    (folder / "checkpoint-5" / LAST).unlink()
    stop = threading.Event()
    threading.Timer(5 * SETTLE, stop.set).start()
    result = watch(folder, stop=stop)
    assert not result.published
    assert LAST in result.waiting[5]


def test_a_folder_is_still_only_after_the_whole_time_without_a_change(tmp_path: Path) -> None:
    now = [0.0]
    stillness = Stillness(10, clock=lambda: now[0])
    file = tmp_path / "x"
    file.write_text("1")
    assert stillness.still(tmp_path) is None
    now[0] = 9.0
    assert stillness.still(tmp_path) is None
    file.write_text("2")  # as long as before
    os.utime(file, ns=(1, 1))
    now[0] = 18.0
    assert stillness.still(tmp_path) is None
    now[0] = 28.0
    assert stillness.still(tmp_path) is not None
    (tmp_path / "y").touch()
    assert stillness.still(tmp_path) is None
