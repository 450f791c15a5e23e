"""``relex-merge`` as a test calls it, and what it leaves on the terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
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


def python(script: str) -> subprocess.CompletedProcess[str]:
    """A script in an interpreter of its own; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done
