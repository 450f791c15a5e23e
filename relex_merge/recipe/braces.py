"""Brace ranges in model references, expanded as in bash."""

from __future__ import annotations

import math
import re

from relex_merge.errors import RelexError

MOST = 10_000  # checkpoints in one recipe
_MOST_RANGES = 8  # in one reference
_MOST_DIGITS = 18
_BRACES = re.compile(r"\{(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?\}", re.ASCII)


def count_braces(text: str) -> int:
    """Return how many references :func:`expand_braces` makes of one. Raises RelexError as that."""
    if len(ranges := _BRACES.findall(text)) > _MOST_RANGES:
        raise RelexError(f"{text[:200]} has {len(ranges)} brace ranges; {_MOST_RANGES} are enough")
    count = math.prod(len(_numbers(found, text)) for found in _BRACES.finditer(text))
    if count > MOST:
        raise RelexError(
            f"{text[:200]} names {count:,} checkpoints, and a recipe takes {MOST:,} at most; take "
            "every tenth, for example, with a stride: {1..1000..10}"
        )
    return count


def expand_braces(text: str) -> list[str]:
    """Expand every brace range: ``a{1..3}`` → a1, a2, a3.

    As in bash: ``{1..9..4}`` strides, ``{9..1}`` counts down, ``{01..10}`` keeps the width.

    Raises:
        RelexError: a range has a stride of 0 or a number of too many digits, or there are too many
            ranges or references.
    """
    count_braces(text)
    made, rest = [""], 0
    for found in _BRACES.finditer(text):
        padded = any(re.match(r"-?0\d", number) for number in found.group(1, 2))
        width = max(map(len, found.group(1, 2))) if padded else 0
        head, rest = text[rest : found.start()], found.end()
        numbers = [f"{number:0{width}d}" for number in _numbers(found, text)]
        made = [f"{start}{head}{number}" for start in made for number in numbers]
    return [start + text[rest:] for start in made]


def _numbers(found: re.Match[str], text: str) -> range:
    """Return the numbers of a range. Raises RelexError."""
    first, last, stride = found.groups("1")
    if max(map(len, found.groups(""))) > _MOST_DIGITS:
        raise RelexError(f"{text[:200]}: {found[0][:80]} has a number that is too long for a step")
    start, stop, by = int(first), int(last), abs(int(stride))
    if by == 0:
        raise RelexError(f"{text}: the stride of {found[0]} is 0; give a positive one")
    return range(start, stop + 1, by) if start <= stop else range(start, stop - 1, -by)
