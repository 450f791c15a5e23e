"""Which questions choose and which are reported: fixed by their content, once and for all.

The part of a question depends on nothing but the task's name and the question: not on its place,
on the other questions, or on what any model answered. A quarter chooses; the rest is reported and
must not be looked at before the choice is made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

CHOOSING = 0.25


def position(task: str, document: str) -> float:
    r"""Return where a question lies on a line from 0 to 1.

    Args:
        task: the task's name.
        document: the question's key (:mod:`relex_merge.evaluation.tasks`), the SHA-256 of its
            content; what follows a ``#`` numbers questions of the same content, which must not
            be torn apart.

    Returns:
        The first 64 bits of SHA-256("TASK\nCONTENT") as a fraction.
    """
    digest = hashlib.sha256(f"{task}\n{document.partition('#')[0]}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def choosing_part(task: str, documents: Iterable[str]) -> list[str]:
    """Return the questions that candidates are chosen by, in an order that means nothing."""
    return sorted(
        (d for d in documents if position(task, d) < CHOOSING), key=lambda d: (position(task, d), d)
    )


def reported_part(task: str, documents: Iterable[str]) -> list[str]:
    """Return the questions that are reported and never enter a choice."""
    return sorted(
        (d for d in documents if position(task, d) >= CHOOSING),
        key=lambda d: (position(task, d), d),
    )
