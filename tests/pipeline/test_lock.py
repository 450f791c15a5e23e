"""One run at a time for an OUT, also from two machines that share its disk."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relex_merge.errors import RelexError
from relex_merge.pipeline.lock import locked

LEASE = 1.0
HOLD = """
import os, socket, sys, time
socket.gethostname = lambda: {host!r}
from pathlib import Path
from relex_merge.pipeline.lock import locked
with locked(Path({file!r}), Path("out"), print, {lease}):
    print("held", flush=True)
    sys.stdin.readline()
"""


class Owner:
    """A process that holds the lock, on this machine or as if on another."""

    def __init__(self, file: Path, host: str | None) -> None:
        import socket

        host = host or socket.gethostname()
        script = HOLD.format(host=host, file=str(file), lease=LEASE)
        self.process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "held\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / ".out.relex-lock"


@pytest.fixture(params=[None, "node-b"], ids=["this machine", "another machine"])
def owner(request: pytest.FixtureRequest, file: Path) -> Iterator[Owner]:
    started = Owner(file, request.param)
    yield started
    started.kill()


def take(file: Path) -> list[str]:
    """Take the lock and give it back; what was said meanwhile."""
    said: list[str] = []
    with locked(file, Path("out"), said.append, LEASE) as lock:
        lock.check()
    assert not file.exists()
    return said


def test_an_owner_who_lives_is_named(owner: Owner, file: Path) -> None:
    for _ in range(2):  # the refusal leaves the lock alone
        with pytest.raises(RelexError, match="another run is writing out") as caught:
            take(file)
        assert f"process {owner.process.pid} on " in str(caught.value)
    owner.process.communicate("\n")
    assert owner.process.returncode == 0
    assert take(file) == []


def test_an_owner_who_was_killed_is_followed(owner: Owner, file: Path) -> None:
    owner.kill()
    assert file.exists()
    begin = time.monotonic()
    take(file)
    assert time.monotonic() - begin < 10 * LEASE


def test_a_lock_without_a_name_in_it(file: Path) -> None:
    file.touch()  # killed between making it and writing into it
    take(file)


def test_a_lock_that_was_lost_is_noticed(file: Path) -> None:
    with locked(file, Path("out"), print, LEASE) as lock:
        lock.check()
        file.unlink()
        Owner(file, "node-b").kill()
        with pytest.raises(RelexError, match="took over"):
            lock.check()


def test_what_a_killed_successor_left_is_swept(file: Path) -> None:
    """A run that was killed while it took over a stale lock; its process is gone."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = [file.with_name(f"{file.name}.break.{pid}.0f0f") for pid in (gone.pid, os.getpid())]
    for path in left:
        path.touch()
    take(file)
    assert [path.exists() for path in left] == [False, True]
