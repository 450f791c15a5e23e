"""Computations that may fail without taking the rest of the report with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from typing_extensions import TypedDict

T = TypeVar("T")

# What arithmetic raises when it comes to no result; LAPACK's LinAlgError is a ValueError.
UNCOMPUTABLE = (ArithmeticError, ValueError)


class Gap(TypedDict):
    """A part of the report that could not be computed, by its place in the JSON, and why."""

    part: str
    reason: str


class Attempt(Protocol):
    """A way to compute one part: what comes of it, or ``otherwise`` where that is allowed."""

    def __call__(self, part: str, compute: Callable[[], T], otherwise: T) -> T:
        """Return ``compute()`` or ``otherwise``."""
        ...


def insist(part: str, compute: Callable[[], T], otherwise: T) -> T:
    """Compute, and let every exception through."""
    return compute()


class Gaps:
    """The parts that failed.

    Attributes:
        found: one entry for each part, in the order in which they failed.
    """

    def __init__(self) -> None:
        self.found: list[Gap] = []

    def attempt(self, part: str, compute: Callable[[], T], otherwise: T) -> T:
        """Compute a part; where its arithmetic fails, note that and return ``otherwise``."""
        try:
            return compute()
        except UNCOMPUTABLE as error:
            self.note(part, str(error) or type(error).__name__)
            return otherwise

    def note(self, part: str, reason: str) -> None:
        """Note a part that cannot be computed; of one part the first reason is kept."""
        if all(gap["part"] != part for gap in self.found):
            self.found.append({"part": part, "reason": reason})
