"""Steps in the names of branches, tags and folders.

A name is read from its end: the last outspoken step (``step_50``, ``global_step50_hf``,
``checkpoint-50``, ``ckpt/50``), else a part that is nothing but a number, else the last number that
is neither a version (1.5) nor a size (8B). The last kind is a guess, and told apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from relex_merge.errors import RelexError

_OUTSPOKEN = re.compile(
    r"(?<![a-z])(?:global[-_]?)?(?:steps?|checkpoints?|ckpts?|iter(?:ation)?s?)"
    r"[-_=./ ]?(\d+)(?!\d|\.\d)",
    re.IGNORECASE,
)
_BARE = re.compile(r"(?:^|(?<=/))(\d+)(?=/|$)")
_NUMBER = re.compile(r"(?<![\d.])(\d+)(?!\d|\.\d|[bBmMkK](?![a-zA-Z]))")
_SHA = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Named:
    """A name with a step in it.

    shape: the name with ``{step}`` in the step's place; guessed: whether the number says itself
    that it is a step.
    """

    name: str
    step: int
    shape: str
    guessed: bool = False

    @property
    def family(self) -> str:
        """The shape with every other number blanked: tokens counted in a name change with it."""
        return re.sub(r"\d+", "#", self.shape)


def read_name(name: str) -> Named | None:
    """The step in a name, None when it has no number or is a commit's sha."""
    if _SHA.fullmatch(name):
        return None
    for pattern in (_OUTSPOKEN, _BARE, _NUMBER):
        found = list(pattern.finditer(name))
        if found:
            return _named(name, found[-1], guessed=pattern is _NUMBER)
    return None


def compile_pattern(pattern: str | None) -> re.Pattern[str] | None:
    """The user's pattern. Raises RelexError for one that is not valid or has no group."""
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise RelexError(f"the pattern {pattern!r} is no regular expression: {error}") from error
    if not compiled.groups:
        raise RelexError(
            f"the pattern {pattern!r} has no group; put the step in one, for example step_(\\d+)"
        )
    return compiled


def read_by(pattern: re.Pattern[str] | None, name: str) -> Named | None:
    """The step in a name by the user's pattern, whose first group it is, or by :func:`read_name`.

    Raises RelexError when the group holds something else.
    """
    if pattern is None:
        return read_name(name)
    found = pattern.search(name)
    if not found or found[1] is None:
        return None
    if not found[1].isdecimal():
        raise RelexError(
            f"the first group of the pattern {pattern.pattern!r} finds {found[1]!r} in {name}, "
            "which is not a step number; put (\\d+) around the step"
        )
    return _named(name, found)


def _named(name: str, found: re.Match[str], *, guessed: bool = False) -> Named:
    start, stop = found.span(1)
    return Named(name, int(found[1]), f"{name[:start]}{{step}}{name[stop:]}", guessed)
