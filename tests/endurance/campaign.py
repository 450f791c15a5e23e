"""What a campaign is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

Trial: TypeAlias = Callable[[int], None]
"""Tries the case of that number; raises what is wrong."""


class UnavailableError(Exception):
    """This machine lacks what a campaign needs, such as the right to mount a file system."""


@dataclass(frozen=True)
class Bench:
    """What a campaign is given.

    Attributes:
        seed: of all its cases.
        folder: an empty folder for its files.
        quick: whether outages are seconds instead of a minute, and series short.
    """

    seed: int
    folder: Path
    quick: bool = False

    def work(self, number: int) -> Path:
        """Return a new folder for a case."""
        folder = self.folder / f"case-{number}"
        folder.mkdir()
        return folder


@dataclass(frozen=True)
class Campaign:
    """Cases of one kind.

    Attributes:
        name: for ``--only``.
        about: what is tried, in the table.
        cases: how many, in a whole run.
        open: prepares what all cases share, and gives the trial.
        slowest: seconds of processor time that a case may take in this process; None for any.
        patience: seconds after which a case counts as hanging.
    """

    name: str
    about: str
    cases: int
    open: Callable[[Bench], AbstractContextManager[Trial]]
    slowest: float | None = None
    patience: float = 600.0
