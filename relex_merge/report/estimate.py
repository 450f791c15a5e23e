"""A measured number with its standard error."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A measured number.

    value: in the unit of what was measured. stderr: its standard error in the same unit, None
    where a single prompt leaves it unknown.
    """

    value: float
    stderr: float | None
