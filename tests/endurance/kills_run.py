"""Runs killed or interrupted anywhere, in every mode: the old output or the new one, each whole."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relex_merge.errors import RelexError
from tests.endurance.campaign import Bench, Campaign, Trial
from tests.fake_hub.fixtures import emptied_hub
from tests.support.outputs import contents
from tests.support.run_modes import Mode, hub_modes, local_modes, write
from tests.support.stopped import Life, Work, life, stopped

MODES = 9
OLD = {"model.safetensors": b"old", "config.json": b"old", "sub/README.md": b"old"}
MOST_STOPS = 3  # of one run


def _put_old(out: Path) -> None:
    for name, text in OLD.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(text)


def _work(mode: Mode, out: Path, force: bool) -> Work:
    return Work(write, (mode.recipe, out), {**mode.how, "force": force}, out.parent)


def _repeated(work: Work, out: Path, mode: Mode) -> None:
    """Give the same command again: it ends the run, or finds that nothing is left to do."""
    try:
        work.do()
    except RelexError as error:
        assert "is not empty" in str(error), error  # noqa: PT017  # both outcomes are right
    assert contents(out) == mode.whole, "the repeated run wrote something else"
    left = {path.name for path in out.parent.iterdir()} - {"out"}
    assert not left, f"left over: {left}"


@contextmanager
def _open(bench: Bench) -> Iterator[Trial]:
    lives: dict[str, Life] = {}
    with emptied_hub() as hub:
        modes = [
            *local_modes(bench.folder / "local"),
            *hub_modes(bench.folder / "hub", hub),
        ]
        assert len(modes) == MODES

        def trial(number: int) -> None:
            chance = random.Random(f"{bench.seed}/{number}")
            mode = modes[number % MODES]
            force = chance.random() < 0.5
            if mode.name not in lives:
                lives[mode.name] = life(_work(mode, bench.folder / f"{mode.name}/out", False))
            out = bench.work(number) / "out"
            if force:
                _put_old(out)
            work, before = _work(mode, out, force), contents(out)
            for _ in range(chance.randint(1, MOST_STOPS)):
                shutil.rmtree(Path(os.environ["HF_HOME"]), ignore_errors=True)
                stop = lives[mode.name].stop(chance)
                stopped(work, stop)
                found = contents(out)
                assert found in (before, mode.whole), f"{mode.name}, {stop}: half an output"
                if found == mode.whole:
                    break
            _repeated(work, out, mode)
            shutil.rmtree(out.parent)

        yield trial


CAMPAIGN = Campaign("kills-run", f"runs stopped anywhere, {MODES} modes", 100 * MODES, _open)
