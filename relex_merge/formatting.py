"""Steps, sizes and numbers as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def format_step(step: float) -> str:
    """A step number without a trailing ``.0``: 1000, 750.5."""
    return str(int(step)) if float(step).is_integer() else f"{step:g}"


def whole(number: float) -> float | int:
    """A step number as people write it: 75, not 75.0."""
    return int(number) if float(number).is_integer() else float(number)


LOWEST = -99  # a skill below this needs no digits


def cell(value: float | None, form: str) -> str:
    """A figure for readers; a dash where it is undefined, and no digits where it is hopeless."""
    if value is None:
        return "–"
    if value < LOWEST:
        return f"<{LOWEST}"
    if form.endswith("°"):
        return f"{value:{form[:-1]}}°"
    return f"{value:{form}}"


def table(rows: Mapping[str, str]) -> str:
    """A line for each name and its text."""
    width = max(len(name) for name in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows.items())


def size(nbytes: int) -> str:
    """Bytes as people read them, in powers of 1000: 5.6 GB."""
    value, units = float(nbytes), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}"


def some(names: Sequence[str], count: int = 8, separator: str = ", ") -> str:
    """The first of several names, and how many there are besides."""
    more = f"{separator}and {len(names) - count} more" if len(names) > count else ""
    return separator.join(names[:count]) + more if names else "nothing"
