"""Pushes killed or interrupted anywhere: nothing half is shown, and the same command ends them."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from relex_merge.errors import RelexError
from tests.endurance.campaign import Bench, Campaign, Trial
from tests.fake_hub import Fault, Hub
from tests.fake_hub.fixtures import emptied_hub
from tests.support.push_modes import PushMode, heads, push_modes
from tests.support.stopped import Work, forkserver

WHEN: tuple[Literal["before", "after"] | None, ...] = ("before", "after", None)


def _requests(mode: PushMode) -> int:
    """Return how many requests it takes undisturbed."""
    with emptied_hub() as hub:
        mode.seed(hub)
        before = heads(hub)
        mode.work.do()
        mode.check_done(hub, before)
        return len(hub.requests())


def _stop(hub: Hub, work: Work, chance: random.Random, requests: int) -> None:
    """Do the work in a process that gets a signal at one of its requests."""
    process = forkserver().Process(target=_quietly, args=(work,))
    number = chance.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGINT))

    def strike() -> None:
        while process.pid is None:
            time.sleep(0.001)
        os.kill(process.pid, number)

    at, when = chance.randrange(requests), chance.choice(WHEN)
    hub.faults.add(Fault(".", after=at, drop=when, action=strike))
    process.start()
    process.join()
    hub.faults.clear()
    hub.log.settle()


def _quietly(work: Work) -> None:
    """Do the work without the traceback of an interruption."""
    try:
        work.do()
    except (KeyboardInterrupt, RelexError):
        os._exit(1)


@contextmanager
def _open(bench: Bench) -> Iterator[Trial]:
    modes = push_modes(bench.folder)
    requests: dict[str, int] = {}

    def trial(number: int) -> None:
        chance = random.Random(f"{bench.seed}/{number}")
        mode = modes[number % len(modes)]
        if mode.name not in requests:
            requests[mode.name] = _requests(mode)
        with emptied_hub() as hub:
            mode.seed(hub)
            before = heads(hub)
            for _ in range(chance.choice((1, 1, 2))):
                _stop(hub, mode.work, chance, requests[mode.name])
                mode.check_nothing_half(hub, before)
            done = mode.is_done(hub)
            try:
                mode.work.do()
            except RelexError as error:
                assert done, error  # noqa: PT017  # refused because it is there already
                assert "already" in str(error), error  # noqa: PT017
            mode.check_done(hub, before)

    yield trial


CAMPAIGN = Campaign("kills-push", "pushes stopped at any request, 5 modes", 500, _open)
