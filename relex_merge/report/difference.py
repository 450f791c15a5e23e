"""A model's paired difference from the last observed checkpoint, and that of several tasks.

Of several tasks every one has the same weight: the mean of their means, and the sum of their
variances over the squared number of tasks; so does the middle of their intervals, and the squares
of their half-widths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from relex_merge.report.evaluation import Better


@dataclass(frozen=True)
class Difference:
    """A model's scores minus the last observed checkpoint's, positive is better.

    mean: over questions. stderr: s_d/√n, None with a single question. low, high: the 95 % interval
    (:mod:`relex_merge.evaluation.paired`). n: questions.
    """

    mean: float
    stderr: float | None
    low: float
    high: float
    n: int

    @property
    def would_tell(self) -> int | None:
        """About how many questions it would take for the interval to leave out zero.

        That is, were the effect what it was seen to be; None where the interval does so already,
        and where no difference was seen.
        """
        if not self.low <= 0 <= self.high or self.mean == 0:
            return None
        spread = (self.high - self.low) / 2
        return max(math.ceil(self.n * (spread / self.mean) ** 2), self.n + 1)

    @property
    def better(self) -> Better:
        """Whether the model is better than the last observed checkpoint, as far as can be told."""
        if self.low > 0:
            return "yes"
        return "no" if self.high < 0 else "cannot be told"

    @property
    def sentence(self) -> str:
        """The answer to the question that everybody asks, with its reason."""
        figures = f"{self.mean:+.3f}, 95 % interval {self.low:+.3f} to {self.high:+.3f}"
        question = "Better than the last observed checkpoint:"
        if self.better != "cannot be told":
            return f"{question} {self.better} ({figures}, {self.n} questions)."
        if self.would_tell is None:
            return f"{question} cannot be told with {self.n} questions ({figures})."
        return (
            f"{question} cannot be told with {self.n} questions ({figures}; about "
            f"{self.would_tell} would tell)."
        )


def combined(tasks: Sequence[Difference]) -> Difference:
    """Return the difference over several tasks, each with the same weight (module text).

    Args:
        tasks: one for each task, at least one.
    """
    if len(tasks) == 1:
        return tasks[0]
    count = len(tasks)
    errors = [d.stderr for d in tasks if d.stderr is not None]
    stderr = math.hypot(*errors) / count if len(errors) == count else None
    centre = sum((d.low + d.high) / 2 for d in tasks) / count
    spread = math.hypot(*((d.high - d.low) / 2 for d in tasks)) / count
    return Difference(
        sum(d.mean for d in tasks) / count,
        stderr,
        centre - spread,
        centre + spread,
        sum(d.n for d in tasks),
    )
