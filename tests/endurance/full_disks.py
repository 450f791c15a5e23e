"""Disks that are too small for an output, in every mode: one message, and with room it goes on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.endurance.campaign import Bench, Campaign, Trial, UnavailableError
from tests.support.outputs import contents
from tests.support.refusal import refusal
from tests.support.run_modes import Mode, local_modes, write
from tests.support.small_disk import grow, small_disk

PAGE = 4096  # bytes
DOCUMENTS = {"README.md", "relex_report.json", "mergekit_config.yml"}
ROOM = 2**26  # bytes, more than enough


def _run(mode: Mode, disk: Path, chance: random.Random) -> None:
    """Run out of room, or not; then again with room enough."""
    out = disk / "out"
    warnings: list[str] = []
    said = refusal(lambda: write(mode.recipe, out, notify=warnings.append, **mode.how))
    if said is None:
        found = contents(out)
        missing = mode.whole.keys() - found.keys()
        # A document that found no room never costs the model.
        assert all(any(name in warning for warning in warnings) for name in missing), missing
        assert {Path(name).name for name in missing} <= DOCUMENTS, f"{mode.name}: lacks {missing}"
        assert found == {name: mode.whole[name] for name in found}, f"{mode.name}: other bytes"
        return
    assert str(disk) in said, f"{mode.name}: {said}"
    assert "free" in said, f"{mode.name}: {said}"
    left = {path.name for path in disk.iterdir()}
    assert left <= {".out.relex-partial"}, f"{mode.name}: left {left}"
    if left or chance.random() < 0.3:
        grow(disk, ROOM)
        write(mode.recipe, out, **mode.how)
        assert contents(out) == mode.whole, f"{mode.name}: other bytes after {said}"
        assert {path.name for path in disk.iterdir()} == {"out"}


@contextmanager
def _open(bench: Bench) -> Iterator[Trial]:
    modes = local_modes(bench.folder / "local")

    def trial(number: int) -> None:
        chance = random.Random(f"{bench.seed}/{number}")
        mode = modes[number % len(modes)]
        needed = sum(len(content) for content in mode.whole.values())
        size = PAGE * chance.randint(1, 2 * needed // PAGE)
        try:
            with small_disk(bench.folder / f"disk-{number}", size) as disk:
                _run(mode, disk, chance)
        except PermissionError as reason:
            raise UnavailableError(str(reason)) from reason

    yield trial


CAMPAIGN = Campaign("full-disks", "runs on a disk that may be too small, 7 modes", 280, _open)
