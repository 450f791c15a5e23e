"""A Hub in trouble: a share of its requests fails in seven ways, or all of them for a while."""

from __future__ import annotations

import random
import time
from typing import Any

from tests.fake_hub import Fault, Hub
from tests.fake_hub.log import Entry

WAYS: dict[str, dict[str, Any]] = {
    "500": {"status": 500},
    "502": {"status": 502},
    "503": {"status": 503},
    "429": {"status": 429, "headers": {"Retry-After": "1"}},
    "dropped before": {"drop": "before"},
    "dropped after": {"drop": "after"},
    "cut": {"cut_after": 100},
}


def add_random_faults(hub: Hub, seed: str, share: float) -> list[Fault]:
    """Have a share of all requests fail, in a way that is drawn for each; returns the faults.

    Args:
        hub: the Hub.
        seed: of the draws, one for each request in the order of their arrival.
        share: between 0 and 1.
    """
    chance = random.Random(seed)
    drawn: dict[int, str] = {}

    def way(entry: Entry) -> str:
        if entry.number not in drawn:  # asked by one thread at a time
            fails = chance.random() < share
            drawn[entry.number] = chance.choice(list(WAYS)) if fails else ""
        return drawn[entry.number]

    return [
        hub.faults.add(Fault(lambda entry, name=name: way(entry) == name, times=None, **how))  # type: ignore[misc]
        for name, how in WAYS.items()
    ]


def add_outage(hub: Hub, after: int, seconds: float, way: str) -> Fault:
    """Have every request fail for a while, once so many were served; returns the fault.

    Args:
        hub: the Hub.
        after: requests that are served before.
        seconds: how long the Hub is away.
        way: one of WAYS.
    """
    begun: list[float] = []

    def away(entry: Entry) -> bool:
        nonlocal after
        after -= 1
        if after >= 0:
            return False
        begun.append(time.monotonic())
        return begun[-1] - begun[0] < seconds

    return hub.faults.add(Fault(away, times=None, **WAYS[way]))
