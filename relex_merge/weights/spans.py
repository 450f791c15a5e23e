"""Ranges of a file gathered into few requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from relex_merge.hub.body import Span

LONGEST_SPAN = 16 * 2**20  # bytes; longer ones are cut, so that they come in parallel
WIDEST_GAP = 2**18  # bytes; to read over a smaller one is cheaper than another request


def coalesce(ranges: Iterable[tuple[int, memoryview]]) -> list[Span]:
    """As few spans as possible for byte offsets and the buffers to fill from there."""
    spans: list[Span] = []
    for begin, buffer in sorted(ranges, key=lambda asked: asked[0]):
        start, rest = begin, buffer
        while rest:
            last = spans[-1] if spans else None
            if (
                last is None
                or not 0 <= start - last.stop <= WIDEST_GAP
                or start - last.start >= LONGEST_SPAN
            ):
                last = Span(start, start, deque())
                spans.append(last)
            if start > last.stop:
                last.views.append(memoryview(bytearray(start - last.stop)))
            part = rest[: LONGEST_SPAN - (start - last.start)]
            last.views.append(part)
            start, rest = start + len(part), rest[len(part) :]
            last.stop = start
    return spans
