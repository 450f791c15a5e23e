"""A Hub of which a share of all requests fails, in seven ways."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from huggingface_hub import constants

from tests.fake_hub import Fault, Hub
from tests.fake_hub.log import Entry

TIMEOUT = 0.5  # seconds that the client waits for an answer
WAYS: dict[str, dict[str, Any]] = {
    "connection reset": {"drop": "before"},
    "timeout": {"delay": TIMEOUT + 0.3},
    "429": {"status": 429, "headers": {"Retry-After": "3"}},
    "500": {"status": 500},
    "502": {"status": 502},
    "503": {"status": 503},
    "truncated body": {"cut_after": 7},
}


def make_flaky(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, *, share: float, seed: int = 0
) -> dict[str, Fault]:
    """Let a share of all requests fail from now on; which ones is drawn by their number."""
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", TIMEOUT)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", TIMEOUT)
    ways = list(WAYS)

    def drawn(entry: Entry) -> str | None:
        number = random.Random(f"{seed} {entry.number}").random()
        return ways[int(number / share * len(ways))] if number < share else None

    def of(way: str) -> Callable[[Entry], bool]:
        return lambda entry: drawn(entry) == way

    return {way: hub.faults.add(Fault(of(way), times=None, **how)) for way, how in WAYS.items()}
