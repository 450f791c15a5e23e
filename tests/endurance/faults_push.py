"""Pushes to a Hub that fails a fifth of all requests: complete, in one commit a revision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.endurance.campaign import Bench, Campaign, Trial
from tests.endurance.faults_run import SHARE
from tests.fake_hub.fixtures import emptied_hub
from tests.support.haste import hurried
from tests.support.hub_trouble import WAYS, add_random_faults
from tests.support.push_modes import heads, push_modes
from tests.support.refusal import refusal


@contextmanager
def _open(bench: Bench) -> Iterator[Trial]:
    modes = push_modes(bench.folder)

    def trial(number: int) -> None:
        mode = modes[number % len(modes)]
        with emptied_hub() as hub, hurried():
            mode.seed(hub)
            before = heads(hub)
            add_random_faults(hub, f"{bench.seed}/{number}", SHARE)
            said = refusal(mode.work.do)
            hub.faults.clear()
            if not mode.revisions:  # a pull request is not asked for twice: it may be there
                mode.check_nothing_half(hub, before)
                return
            assert said is None, f"{mode.name}: {said}"
            mode.check_done(hub, before)
            mode.check_one_commit(hub, before)

    yield trial


CAMPAIGN = Campaign(
    "faults-push", f"pushes with {SHARE:.0%} of requests failing in {len(WAYS)} ways", 100, _open
)
