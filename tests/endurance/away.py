"""A Hub that is away when a command begins: one line within ten seconds."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.endurance.campaign import Bench, Campaign, Trial
from tests.fake_hub import Fault, Hub
from tests.fake_hub.building import WRITE_TOKEN
from tests.fake_hub.fixtures import emptied_hub
from tests.support.local_runs import make_run
from tests.support.models import write_recipe
from tests.support.outputs import REPO, make_output
from tests.support.terminal import shell

SECONDS = 10.0
WAYS = ("refused", "503", "dropped", "silent", "no such host")
NOTE = "_name_or_path in "  # what publish-series says of the series, before it asks the Hub
RECIPE = {
    "merge_method": "relex",
    "base_model": "org/base",
    "models": [{"model": "org/run@step_{1..3}"}],
    "parameters": {"target_step": 20},
}


@contextmanager
def _away(hub: Hub, way: str) -> Iterator[str]:
    """Give the address of a Hub that is away in this way."""
    with ExitStack() as stack:
        if way == "silent":
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        elif way in ("503", "dropped"):
            down = Fault(".", times=None, status=503)
            gone = Fault(".", times=None, drop="before")
            hub.faults.add(down if way == "503" else gone)
            yield hub.url
        else:
            yield "http://127.0.0.1:1" if way == "refused" else "http://nowhere.invalid"


def _commands(folder: Path) -> list[tuple[object, ...]]:
    recipe = write_recipe(folder / "r.yml", RECIPE)
    out, (run, _) = make_output(folder / "out"), make_run(folder / "series")
    made = folder / "new/out"
    return [
        ("recipe", "org/run", "--base", "org/base", "--target-step", 20, "-o", folder / "new.yml"),
        ("push", out, REPO),
        ("publish-series", run, REPO),
        ("inspect", recipe),
        ("run", recipe, made),
        ("run", recipe, made, "--no-stream"),
        ("run", recipe, made, "--push-to", REPO),
    ]


@contextmanager
def _open(bench: Bench) -> Iterator[Trial]:
    commands = _commands(bench.folder)

    def trial(number: int) -> None:
        way, command = WAYS[number % len(WAYS)], commands[number // len(WAYS) % len(commands)]
        with emptied_hub() as hub, _away(hub, way) as address:
            start = time.monotonic()
            done = shell(*command, HF_ENDPOINT=address, HF_TOKEN=WRITE_TOKEN)
            spent = time.monotonic() - start
        said = f"{command[0]}, {way}, after {spent:.1f} s: {done.stderr}"
        assert done.returncode == 1, said
        lines = [line for line in done.stderr.splitlines() if not line.startswith(NOTE)]
        assert len(lines) == 1, said
        assert lines[0].startswith("error: "), said
        assert "Hub" in lines[0], said
        assert not (bench.folder / "new").exists(), said
        assert spent < SECONDS, said

    yield trial


CAMPAIGN = Campaign("away", "a Hub that is away at the start: one line in 10 s", 35, _open)
