"""Machines that write one OUT on a shared disk at a time: one of them does, whole."""

from __future__ import annotations

import random
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from relex_merge.errors import RelexError
from tests.endurance.campaign import Bench, Campaign, Trial
from tests.support.models import Series, make_series
from tests.support.outputs import contents
from tests.support.run_modes import STEPS, write
from tests.support.stopped import Work, forkserver

TARGETS = (20, 99)
REFUSALS = ("another run is writing", "is not empty", "took over")


def _on(host: str, pause: float, work: Work, pipe: Connection) -> None:
    """Run as if on another machine; send what it was refused with, "" if it was not."""
    socket.gethostname = lambda: host
    time.sleep(pause)
    try:
        work.do()
    except RelexError as error:
        pipe.send(str(error))
    else:
        pipe.send("")


def _together(series: Series, out: Path, chance: random.Random, killing: bool) -> list[str]:
    """Run on two or three machines, one of which may die; return what the others were told."""
    context = forkserver()
    said, running = [], []
    for node in range(chance.choice((2, 2, 3))):
        here, there = context.Pipe(duplex=False)
        recipe = series.recipe(chance.choice(TARGETS))
        work = Work(write, (recipe, out), {"force": chance.random() < 0.5}, out.parent)
        arguments = (f"node-{node}", chance.uniform(0, 0.5), work, there)
        process = context.Process(target=_on, args=arguments)
        process.start()
        there.close()
        running.append((process, here))
    if killing:
        running[0][0].join(chance.uniform(0, 1.5))
        running[0][0].kill()
    for process, pipe in running:
        process.join()
        try:
            said.append(pipe.recv())
        except EOFError:
            assert killing, f"exit code {process.exitcode}, nothing said"
    return said


@contextmanager
def _open(bench: Bench) -> Iterator[Trial]:
    series = make_series(bench.folder / "series", steps=STEPS)
    wholes = []
    for target in TARGETS:
        write(series.recipe(target), bench.folder / f"{target}/out")
        wholes.append(contents(bench.folder / f"{target}/out"))

    def trial(number: int) -> None:
        chance = random.Random(f"{bench.seed}/{number}")
        killing = not bench.quick and number % 5 == 4
        out = bench.work(number) / "out"
        said = _together(series, out, chance, killing)
        wrong = [text for text in said if text and not any(part in text for part in REFUSALS)]
        assert not wrong, wrong
        assert killing or "" in said, f"no machine wrote it: {said}"
        assert contents(out) in (*wholes, {}) if killing else contents(out) in wholes
        write(series.recipe(TARGETS[0]), out, force=True)  # follows one that died, after a while
        assert contents(out) == wholes[0]
        assert {path.name for path in out.parent.iterdir()} == {"out"}
        shutil.rmtree(out.parent)

    yield trial


CAMPAIGN = Campaign("machines", "two or three machines, one OUT on a shared disk", 40, _open)
