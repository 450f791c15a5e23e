"""Paired differences from the last observed checkpoint, with intervals.

Both models answer the same questions, so what counts is the mean of the differences d_i, whose
standard error s_d/√n is far below that of two separate scores (Miller, *Adding Error Bars to
Evals*, 2024, arXiv 2411.00640). The 95 % interval is Agresti and Min's (*Simple improved confidence
intervals for comparing matched proportions*, Statistics in Medicine 24, 2005): the usual one after
two pseudo-questions, one tied, half a one won and half a one lost,

    m = Σ d_i / (n + 2),    v = [ (Σ d_i² + u²) / (n + 2) − m² ] / (n + 2),    m ± 1.96 √v

with u = 1, the largest difference of two scores between 0 and 1 (or max |d_i| where that is more).
It keeps its level with few questions, and does not shrink to a point when all questions tie.

Of several tasks every one has the same weight: the mean of their means, and the sum of their
variances over the squared number of tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from relex_merge.evaluation.estimates import Array
from relex_merge.report.evaluation import Better

LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


@dataclass(frozen=True)
class Difference:
    """A model's scores minus the last observed checkpoint's, positive is better.

    mean: over questions. stderr: s_d/√n, None with a single question. low, high: the 95 % interval
    (module text). n: questions. would_tell: about how many questions it would take for the
    interval to leave out zero, were the effect what it was seen to be; None where it does so
    already, and where no difference was seen.
    """

    mean: float
    stderr: float | None
    low: float
    high: float
    n: int
    would_tell: int | None

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


def paired(tasks: Sequence[Array]) -> Difference:
    """Average paired differences over questions, and over tasks where there are several.

    Args:
        tasks: for each task float64 (n,), n at least 1, the differences question by question
            (:func:`relex_merge.evaluation.scores.differences`).
    """
    count, n = len(tasks), sum(map(len, tasks))
    mean = float(np.mean([d.mean() for d in tasks]))
    stderr = None
    if all(len(d) > 1 for d in tasks):
        stderr = math.sqrt(sum(float(d.var(ddof=1)) / len(d) for d in tasks)) / count
    moments = [_with_pseudo_questions(d) for d in tasks]
    centre = sum(m for m, _ in moments) / count
    spread = Z * math.sqrt(sum(v for _, v in moments)) / count
    low, high = centre - spread, centre + spread
    would_tell = None
    if low <= 0 <= high and mean != 0:
        would_tell = max(math.ceil(n * (spread / mean) ** 2), n + 1)
    return Difference(mean, stderr, low, high, n, would_tell)


def _with_pseudo_questions(d: Array) -> tuple[float, float]:
    """Return m and v of the module text."""
    n = len(d) + 2
    unit = max(1.0, float(np.abs(d).max()))
    mean = float(d.sum()) / n
    return mean, ((float(d @ d) + unit**2) / n - mean**2) / n
