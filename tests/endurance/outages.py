"""A Hub that goes away for a minute in the middle, and comes back: nothing is lost."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.endurance.campaign import Bench, Campaign, Trial
from tests.fake_hub.fixtures import emptied_hub
from tests.support.hub_trouble import add_outage
from tests.support.outputs import contents
from tests.support.push_modes import PushMode, heads, push_modes
from tests.support.run_modes import hub_modes, write

MINUTE = 60.0
WAYS = ("503", "dropped before")
RUNS = ("streamed", "cache")
FIRST = 10  # requests of a push, which takes more of them


def _seconds(bench: Bench) -> float:
    return 1.0 if bench.quick else MINUTE


def _run(bench: Bench, number: int, chance: random.Random, way: str) -> None:
    with emptied_hub() as hub:
        modes = {mode.name: mode for mode in hub_modes(bench.work(number), hub)}
        mode = modes[RUNS[number % len(RUNS)]]
        hub.log.clear()
        whole = mode.whole
        requests = len(hub.requests())
        shutil.rmtree(Path(os.environ["HF_HOME"]), ignore_errors=True)
        add_outage(hub, chance.randrange(1, requests), _seconds(bench), way)
        out = bench.folder / f"new-{number}/out"
        write(mode.recipe, out, **mode.how)
        assert contents(out) == whole, f"{mode.name}: other bytes"


def _push(bench: Bench, mode: PushMode, chance: random.Random, way: str) -> None:
    with emptied_hub() as hub:
        mode.seed(hub)
        before = heads(hub)
        add_outage(hub, chance.randrange(1, FIRST), _seconds(bench), way)
        mode.work.do()
        mode.check_done(hub, before)
        mode.check_one_commit(hub, before)


@contextmanager
def _open(bench: Bench) -> Iterator[Trial]:
    pushes = [mode for mode in push_modes(bench.folder / "pushes") if mode.revisions]

    def trial(number: int) -> None:
        chance = random.Random(f"{bench.seed}/{number}")
        kinds = len(RUNS) + len(pushes)
        kind, way = number % kinds, WAYS[number // kinds % len(WAYS)]
        if kind < len(RUNS):
            _run(bench, number, chance, way)
        else:
            _push(bench, pushes[kind - len(RUNS)], chance, way)

    yield trial


CAMPAIGN = Campaign("outages", "a Hub that is away for a minute: runs and pushes", 12, _open)
