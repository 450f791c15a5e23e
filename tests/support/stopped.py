"""Work in a process of its own that is stopped: at a change of the disk, at a moment, by Ctrl-C."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver as server
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, Literal

from tests.support.kill_points import KILLED, arm
from tests.support.terminal import interruptible

_NEVER = -1


def forkserver() -> ForkServerContext:
    """Return a maker of processes that begin with everything imported.

    So a stop meets the work itself. The environment of these processes is that of the moment when
    the first one was made.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["relex_merge.api", "mergekit.merge", "huggingface_hub.hf_api", "tests.support.run_modes"]
    )
    with interruptible():
        server.ensure_running()
    return context


@dataclass(frozen=True)
class Work:
    """What a process does: a function that can be pickled, and its arguments.

    Attributes:
        call: the function.
        arguments: by position.
        options: by keyword.
        root: the folder whose changes count.
    """

    call: Callable[..., object]
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    root: Path

    def do(self) -> object:
        """Do it here and now."""
        return self.call(*self.arguments, **self.options)


@dataclass(frozen=True)
class Life:
    """How much there is to interrupt.

    Attributes:
        changes: of the disk.
        seconds: from the first line of the work to the last.
    """

    changes: int
    seconds: float

    def stop(self, chance: random.Random) -> Stop:
        """Draw one of the ways and moments to stop it."""
        how: Literal["change", "moment", "ctrl-c"] = chance.choice(("change", "moment", "ctrl-c"))
        if how == "change":
            return Stop(how, chance.randint(1, max(1, self.changes)))
        return Stop(how, max(0.001, chance.uniform(0, self.seconds)))


@dataclass(frozen=True)
class Stop:
    """A way to stop a process.

    Attributes:
        how: at a change of the disk as by ``kill -9``; so at a moment; or by Ctrl-C at a moment.
        at: number of the change, or seconds after the beginning.
    """

    how: Literal["change", "moment", "ctrl-c"]
    at: float


def life(work: Work) -> Life:
    """Do the work undisturbed in a process of its own and return how much there was of it."""
    context = forkserver()
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_watched, args=(work, there))
    process.start()
    there.close()
    found: Life = here.recv()
    process.join()
    return found


def _watched(work: Work, pipe: Connection) -> None:
    count = arm(_NEVER, work.root)
    start = time.monotonic()
    work.do()
    pipe.send(Life(count(), time.monotonic() - start))


def stopped(work: Work, stop: Stop) -> bool:
    """Do the work in a process that is stopped; False: it was done before.

    Raises:
        AssertionError: the work failed by itself.
    """
    process = forkserver().Process(target=_struck, args=(work, stop))
    process.start()
    process.join()
    assert process.exitcode in (0, KILLED, -signal.SIGALRM), (
        f"{stop}: exit code {process.exitcode}, the work failed by itself"
    )
    return process.exitcode != 0


def _struck(work: Work, stop: Stop) -> None:
    came: list[object] = []

    def interrupt(*_: object) -> None:
        came.append(stop)
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt if stop.how == "ctrl-c" else signal.SIG_DFL)
    try:
        if stop.how == "change":
            arm(int(stop.at), work.root)
        else:
            signal.setitimer(signal.ITIMER_REAL, stop.at)
        work.do()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except BaseException:
        if not came:
            raise
        os._exit(KILLED)  # torch and shutil turn some interruptions into errors of their own
