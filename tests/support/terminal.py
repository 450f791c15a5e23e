"""``relex-merge`` as a test calls it, and what it leaves on the terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias


@dataclass(frozen=True)
class Outcome:
    """What a command left on the terminal, and its exit code."""

    code: int
    out: str
    err: str


COMMAND = Path(sys.executable).with_name("relex-merge")
Command: TypeAlias = Callable[..., Outcome]


def shell(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """``relex-merge`` as a process of its own."""
    command = [str(COMMAND), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


@contextmanager
def interruptible() -> Iterator[None]:
    """Processes that start meanwhile end at SIGINT, though the tests themselves may ignore it.

    Whatever a shell starts in the background ignores it, and children inherit that; not handlers.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def start(*arguments: object) -> subprocess.Popen[str]:
    """``relex-merge`` as a process of its own that a test sends signals to."""
    with interruptible():
        return subprocess.Popen(
            [str(COMMAND), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )


def outcome(process: subprocess.Popen[str]) -> Outcome:
    """What a started process leaves; one that does not end in a minute fails the test."""
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return Outcome(process.returncode, out, err)


def python(script: str) -> subprocess.CompletedProcess[str]:
    """A script in an interpreter of its own; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done
