"""Runs from a Hub that fails a fifth of all requests: the same bytes as from one that does not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.endurance.campaign import Bench, Campaign, Trial
from tests.fake_hub.fixtures import emptied_hub
from tests.support.haste import hurried
from tests.support.hub_trouble import WAYS, add_random_faults
from tests.support.outputs import contents
from tests.support.run_modes import hub_modes, write

SHARE = 0.2


@contextmanager
def _open(bench: Bench) -> Iterator[Trial]:
    with emptied_hub() as hub, hurried():
        modes = hub_modes(bench.folder / "hub", hub)

        def trial(number: int) -> None:
            mode = modes[number % len(modes)]
            whole = mode.whole
            shutil.rmtree(Path(os.environ["HF_HOME"]), ignore_errors=True)
            out = bench.work(number) / "out"
            faults = add_random_faults(hub, f"{bench.seed}/{number}", SHARE)
            try:
                write(mode.recipe, out, **mode.how)
            finally:
                hub.faults.clear()
            assert any(fault.fired for fault in faults)
            assert contents(out) == whole, f"{mode.name}: other bytes"
            assert {path.name for path in out.parent.iterdir()} == {"out"}
            shutil.rmtree(out.parent)

        yield trial


CAMPAIGN = Campaign(
    "faults-run", f"runs with {SHARE:.0%} of requests failing in {len(WAYS)} ways", 100, _open
)
