"""Which steps of a series are observed: ``1-75``, ``1-75:5``, ``1,5,10``, ``15%``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from relex_merge.errors import RelexError

_STEP = re.compile(r"\d{1,18}", re.ASCII)
_RANGE = re.compile(r"(\d{1,18})\s*-\s*(\d{1,18})(?::(\d{1,18}))?", re.ASCII)
_SHARE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*%", re.ASCII)
HELP = "write 1-75, 1-75:5, 1,5,10 or 15%, or several of them with commas between"


def select(steps: Sequence[int], text: str, last_step: int) -> list[int]:
    """Return the steps that a text chooses, ascending.

    Args:
        steps: those that there are, ascending.
        text: parts with commas between, each a step, a range a-b (the steps in it that there are),
            a range with a stride a-b:k (of a, a + k, a + 2k, … those that there are, as in a brace
            range), or a share of the run p% (steps ≤ p/100 · last_step).
        last_step: where the run ended.

    Raises:
        RelexError: the text is none of these, or a part chooses nothing.
    """
    chosen: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        found = _part(steps, part, last_step)
        if not found:
            raise RelexError(f"observe {part}: the series has no such step; {_there(steps, part)}")
        chosen |= found
    if not chosen:
        raise RelexError(f"observe {text!r} chooses nothing; {HELP}")
    return sorted(chosen)


def _part(steps: Sequence[int], part: str, last_step: int) -> set[int]:
    if _STEP.fullmatch(part):
        return {int(part)} & set(steps)
    if share := _SHARE.fullmatch(part):
        return {step for step in steps if step <= float(share[1]) / 100 * last_step}
    if not (between := _RANGE.fullmatch(part)):
        raise RelexError(f"observe {part[:80]!r} is no choice of steps; {HELP}")
    first, last, stride = int(between[1]), int(between[2]), int(between[3] or 1)
    if stride == 0 or first > last:
        raise RelexError(f"observe {part}: a range goes up, in strides of at least 1")
    return {step for step in steps if first <= step <= last and (step - first) % stride == 0}


def or_share(part: str | None) -> str:
    """Say how a share of the run is written, after what may have been meant for one."""
    if part is None or not _STEP.fullmatch(part.strip()) or not 0 < int(part) <= 100:
        return ""
    return f"; for the first {int(part)} % of the run write --observe {int(part)}%"


def _there(steps: Sequence[int], part: str) -> str:
    if _STEP.fullmatch(part):
        near = sorted(steps, key=lambda step: abs(step - int(part)))[:4]
        there = f"the nearest that it has: {', '.join(map(str, sorted(near)))}"
        return f"{there}{or_share(part)}"
    some = ", ".join(map(str, steps[:4])) + (f", … {steps[-1]}" if len(steps) > 4 else "")
    return f"it has {some}"
