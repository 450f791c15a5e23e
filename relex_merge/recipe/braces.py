"""Brace ranges in model references, expanded as in bash."""

from __future__ import annotations

import re

from relex_merge.errors import RelexError

_BRACES = re.compile(r"\{(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?\}")


def expand_braces(text: str) -> list[str]:
    """``a{1..3}`` → a1, a2, a3; ``{1..9..4}`` strides, ``{01..10}`` keeps the width, as in bash."""
    match = _BRACES.search(text)
    if not match:
        return [text]
    first, last, stride = match.groups()
    start, stop, by = int(first), int(last), abs(int(stride or 1))
    if by == 0:
        raise RelexError(f"{text}: the stride of {match.group()} is 0; give a positive one")
    by = by if start <= stop else -by
    padded = any(re.match(r"-?0\d", number) for number in (first, last))
    width = max(len(first), len(last)) if padded else 0
    head, tail = text[: match.start()], text[match.end() :]
    numbers = range(start, stop + (1 if by > 0 else -1), by)
    return [head + f"{n:0{width}d}" + rest for n in numbers for rest in expand_braces(tail)]
