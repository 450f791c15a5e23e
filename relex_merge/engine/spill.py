"""Tensors that do not fit into the memory budget and come from the Hub: once over the network.

The engine reads them twice, once for G and once for Σ w_t δ_t. What the first reading brings is
kept on the disk; the second takes it from there, and away. So the scratch disk holds at most the
largest tensor of all checkpoints, and what is read ahead.
"""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from relex_merge.engine.plan import ModelPlan
from relex_merge.engine.schedule import Schedule
from relex_merge.errors import RelexError
from relex_merge.weights.files import fill
from relex_merge.weights.source import Read, Source


class SpillingSource(Source):
    """A source whose tensors ``names`` are read twice, in the same ranges both times."""

    def __init__(self, source: Source, names: frozenset[str], folder: Path) -> None:
        self.label = source.label
        self.tensors = source.tensors
        self.parallel_reads = source.parallel_reads
        self.remote = source.remote
        self._source = source
        self._names = names
        self._folder = folder
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        # Where each range is, once the first reading is done with it.
        self._kept: dict[tuple[str, int], Future[Path]] = {}

    def read(self, reads: Sequence[Read]) -> None:
        """Fill every buffer. Raises RelexError also when the scratch disk is full."""
        anew: list[tuple[Read, Future[Path] | None]] = []
        again: list[tuple[Read, Future[Path]]] = []
        with self._lock:
            for wanted in reads:
                place = (wanted.name, wanted.start)
                if place in self._kept:
                    again.append((wanted, self._kept.pop(place)))
                elif wanted.name in self._names:
                    anew.append((wanted, self._kept.setdefault(place, Future())))
                else:
                    anew.append((wanted, None))
        try:
            self._source.read([wanted for wanted, _ in anew])
            for wanted, kept in anew:
                if kept is not None:
                    kept.set_result(self._keep(wanted))
        except BaseException as error:
            for _, kept in anew:
                if kept is not None and not kept.done():
                    kept.set_exception(error)
            raise
        for wanted, kept in again:
            self._take(kept.result(), wanted)

    def _keep(self, wanted: Read) -> Path:
        path = self._folder / f"{next(self._numbers)}"
        try:
            path.write_bytes(wanted.into)
        except OSError as error:
            raise RelexError(
                f"cannot keep {wanted.name} of {self.label} in {self._folder}: "
                f"{error.strerror or error}; free some room, choose another place for OUT, or "
                "raise --memory-budget, which needs less scratch disk"
            ) from error
        return path

    def _take(self, path: Path, wanted: Read) -> None:
        try:
            with path.open("rb", buffering=0) as stream:
                fill(stream, wanted.into)
            path.unlink()
        except (OSError, EOFError) as error:
            raise RelexError(
                f"{path} changed or vanished during the run; leave what is beside OUT alone, and "
                "run again"
            ) from error

    def fingerprint(self) -> list[Any]:
        """Return the wrapped source's fingerprint."""
        return self._source.fingerprint()

    def check_unchanged(self) -> None:
        """Raise RelexError when the wrapped source has changed."""
        self._source.check_unchanged()

    def stop(self) -> None:
        """Let the wrapped source's reads end soon."""
        self._source.stop()


def scratch_bytes(plan: ModelPlan, schedule: Schedule) -> int:
    """Return the bytes of the largest tensor that is read twice, in all remote sources together."""
    remote = [i for i, source in enumerate(plan.sources) if source.remote]
    return max(
        (
            sum(plan.sources[i].tensors[plan.tensors[tensor].stored[i]].nbytes for i in remote)
            for tensor in schedule.twice
        ),
        default=0,
    )


@contextmanager
def spilling(plan: ModelPlan, schedule: Schedule, folder: Path) -> Iterator[ModelPlan]:
    """Yield the plan with remote sources that keep in ``folder`` what they would fetch twice.

    The folder is made when needed, and gone in the end.
    """
    if not scratch_bytes(plan, schedule):
        yield plan
        return
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    sources = []
    for row, source in enumerate(plan.sources):
        if source.remote:
            names = frozenset(plan.tensors[i].stored[row] for i in schedule.twice)
            own = folder / f"{row}"
            own.mkdir(parents=True)
            source = SpillingSource(source, names, own)  # noqa: PLW2901
        sources.append(source)
    try:
        yield replace(plan, sources=tuple(sources))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
