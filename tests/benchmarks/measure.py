"""Run a command and watch it: wall time, peak anonymous memory, bytes read and written."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

PERIOD = 0.02  # seconds between looks


@dataclass(frozen=True)
class Measured:
    """What a process cost.

    wall: seconds of the whole process; inner: seconds that it reported of its own work, without
    start and imports; anonymous: peak RssAnon of it and its children, bytes; read, written: bytes
    through read and write calls.
    """

    wall: float
    inner: float | None
    anonymous: int
    read: int
    written: int


def measure(command: Sequence[str], report: Path | None = None) -> Measured:
    """Run to the end. report: a JSON file in which the command leaves {"seconds": …}."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0
    counters: dict[int, tuple[int, int]] = {}
    while process.poll() is None:
        family = [psutil.Process(process.pid), *_children(process.pid)]
        peak = max(peak, sum(_anonymous(p.pid) for p in family))
        for member in family:
            counters[member.pid] = _counters(member.pid) or counters.get(member.pid, (0, 0))
        time.sleep(PERIOD)
    wall = time.perf_counter() - start
    if process.returncode:
        message = process.stderr.read().decode() if process.stderr else ""
        sys.exit(f"{' '.join(command)} failed:\n{message[-2000:]}")
    inner = json.loads(report.read_text())["seconds"] if report else None
    read, written = (sum(c[i] for c in counters.values()) for i in (0, 1))
    return Measured(wall, inner, peak, read, written)


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _anonymous(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _counters(pid: int) -> tuple[int, int] | None:
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return None
    values = {key: int(value) for key, value in (line.split(": ") for line in lines)}
    return values["rchar"], values["wchar"]


def table(rows: dict[str, Measured], unit: str) -> str:
    """Wall and inner seconds, also as multiples of the row named ``unit``; memory; bytes."""
    base = rows[unit].wall
    lines = [
        f"{'':<28}{'wall s':>8}{'own s':>8}{'× ' + unit:>14}{'RssAnon MB':>12}"
        f"{'read GB':>9}{'written GB':>11}"
    ]
    for name, m in rows.items():
        own = m.wall if m.inner is None else m.inner
        lines.append(
            f"{name:<28}{m.wall:>8.2f}{own:>8.2f}{own / base:>14.2f}{m.anonymous / 1e6:>12.0f}"
            f"{m.read / 1e9:>9.2f}{m.written / 1e9:>11.2f}"
        )
    return "\n".join(lines)
