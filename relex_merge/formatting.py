"""Steps, sizes and numbers as text, and sizes from text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

UNDEFINED = "–"
LOWEST = -99  # a skill below this needs no digits
_UNITS = ("B", "kB", "MB", "GB", "TB")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def format_step(step: float) -> str:
    """Write a step number without a trailing ``.0``: 1000, 750.5."""
    return str(int(step)) if float(step).is_integer() else f"{step:g}"


def whole(number: float) -> float | int:
    """Return a step number as people write it: 75, not 75.0."""
    return int(number) if float(number).is_integer() else float(number)


def cell(value: float | None, form: str) -> str:
    """Write a figure for readers.

    Args:
        value: the figure, or None where it is undefined: a dash.
        form: its format; with ``°`` at the end for degrees. A hopeless skill is ``<-99``.
    """
    if value is None:
        return UNDEFINED
    if value < LOWEST:
        return f"<{LOWEST}"
    if form.endswith("°"):
        return f"{value:{form[:-1]}}°"
    return f"{value:{form}}"


def significant(value: float | None) -> str:
    """Write at most four significant digits; a dash where the figure is not defined."""
    if value is None or not math.isfinite(value):
        return UNDEFINED
    return f"{value:.4g}"


def table(rows: Mapping[str, str]) -> str:
    """Write a line for each name and its text."""
    width = max(len(name) for name in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows.items())


def size(nbytes: int) -> str:
    """Write bytes as people read them, in powers of 1000: 5.6 GB."""
    value, unit = float(nbytes), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_UNITS[unit]}"


def read_size(text: str) -> int | None:
    """Read a number of bytes: 500M, 2G, 1.5GiB, 1048576; None where it is none.

    K, M, G and T are powers of 1024.
    """
    match = _SIZE.fullmatch(text)
    return int(float(match[1]) * 1024 ** _POWERS[match[2].upper()]) if match else None


def some(names: Sequence[str], count: int = 8, separator: str = ", ") -> str:
    """Write the first of several names, and how many there are besides."""
    more = f"{separator}and {len(names) - count} more" if len(names) > count else ""
    return separator.join(names[:count]) + more if names else "nothing"
