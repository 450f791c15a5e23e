"""How large a sample is asked for: ``0.5%``, ``64M`` numbers, ``auto`` or ``all``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from relex_merge.errors import RelexError

ALL = "all"
EXACT = "exact"
SHARE = 0.005  # of the numbers, where the user does not say
MOST = 0.05  # share up to which ``auto`` goes on
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "B": 3}
_SHARE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*%")
_NUMBERS = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGB]?)", re.IGNORECASE)
_AUTO = re.compile(r"auto(?:\s*:\s*(.+))?")


@dataclass(frozen=True)
class SampleSize:
    """How many of the numbers of a model are read.

    Attributes:
        share: of them, above 0 and up to 1; None where ``count`` says it.
        count: how many; None where ``share`` says it.
        grows: whether the sample is doubled until the verdict is clear.
        most: the share that a growing sample does not exceed.
    """

    share: float | None = SHARE
    count: int | None = None
    grows: bool = False
    most: float = MOST

    def numbers(self, total: int) -> int:
        """Return how many of ``total`` numbers are wanted."""
        wanted = self.count if self.count is not None else round((self.share or 0) * total)
        return min(wanted, total)


def read_sample_size(text: str) -> SampleSize | None:
    """Read what a user wrote; None for ``all``.

    Raises:
        RelexError: it is no size of a sample.
    """
    asked = text.strip().lower()
    if asked == ALL:
        return None
    auto = _AUTO.fullmatch(asked)
    if auto:
        most = MOST if auto[1] is None else _share(auto[1])
        if most is not None:
            return SampleSize(min(SHARE, most), grows=True, most=most)
    share = _share(asked)
    if share is not None:
        return SampleSize(share)
    numbers = _NUMBERS.fullmatch(asked)
    count = int(float(numbers[1]) * 1000 ** _POWERS[numbers[2].upper()]) if numbers else 0
    if not count:
        raise RelexError(
            f"--sample {text}: give a share (0.5%), how many numbers (64M), auto (or auto:2%, the "
            "share that it may reach), or all"
        )
    return SampleSize(None, count)


def sample_of_run(gram: str, reuse: object) -> str | None:
    """Return the size of the sample that a run's ``--gram`` asks for; None for exact matrices.

    Args:
        gram: what the user wrote.
        reuse: the matrices of an earlier run, None where there are none.

    Raises:
        RelexError: ``gram`` is neither, or there are matrices to reuse.
    """
    if gram == EXACT:
        return None
    mode, _, asked = gram.partition(":")
    if mode != "sample":
        raise RelexError(f"--gram {gram}: give exact, sample, or sample:1% for another share")
    if reuse is not None:
        raise RelexError(
            f"--reuse {reuse} brings exact Gram matrices, and --gram sample estimates them; leave "
            "one of them out"
        )
    asked = asked or f"{SHARE:.1%}"
    size = read_sample_size(asked)
    if size is None or size.grows:
        raise RelexError(f"--gram {gram}: give a share (sample:1%) or numbers (sample:64M)")
    return asked


def _share(text: str) -> float | None:
    """Read a percentage above 0 and up to 100; None where it is none."""
    match = _SHARE.fullmatch(text.strip())
    share = float(match[1]) / 100 if match else 0.0
    return share if 0 < share <= 1 else None
