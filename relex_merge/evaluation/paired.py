"""Paired differences from the last observed checkpoint, with intervals.

Both models answer the same questions, so what counts is the mean of the differences d_i, whose
standard error s_d/√n is far below that of two separate scores (Miller, *Adding Error Bars to
Evals*, 2024, arXiv 2411.00640). The 95 % interval is Agresti and Min's (*Simple improved confidence
intervals for comparing matched proportions*, Statistics in Medicine 24, 2005): the usual one after
two pseudo-questions, one tied, half a one won and half a one lost,

    m = Σ d_i / (n + 2),    v = [ (Σ d_i² + u²) / (n + 2) − m² ] / (n + 2),    m ± 1.96 √v

with u = 1, the largest difference of two scores between 0 and 1 (or max |d_i| where that is more).
It keeps its level with few questions, and does not shrink to a point when all questions tie.

Several tasks are put together by :func:`relex_merge.report.difference.combined`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from relex_merge.evaluation.estimates import Array
from relex_merge.report.difference import Difference, combined

LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


def paired(tasks: Sequence[Array]) -> Difference:
    """Average paired differences over questions, and over tasks where there are several.

    Args:
        tasks: for each task float64 (n,), n at least 1, the differences question by question
            (:func:`relex_merge.evaluation.scores.differences`).
    """
    return combined([_of_one(d) for d in tasks])


def _of_one(d: Array) -> Difference:
    """Return the difference on one task (module text)."""
    n = len(d)
    stderr = float(d.std(ddof=1)) / math.sqrt(n) if n > 1 else None
    centre, variance = _with_pseudo_questions(d)
    spread = Z * math.sqrt(variance)
    return Difference(float(d.mean()), stderr, centre - spread, centre + spread, n)


def _with_pseudo_questions(d: Array) -> tuple[float, float]:
    """Return m and v of the module text."""
    n = len(d) + 2
    unit = max(1.0, float(np.abs(d).max()))
    mean = float(d.sum()) / n
    return mean, ((float(d @ d) + unit**2) / n - mean**2) / n
