"""Means over tokens with their standard errors, prompts being the independent units.

Tokens of one response, and responses to one prompt, hang together; prompts do not. So a mean over
tokens is a ratio of two sums over prompts, and its standard error comes from the linearised ratio
(Taylor series, delta method; Cochran, *Sampling Techniques*, 3rd edition, 1977, chapter 6):

    m = Σ_c y_c / Σ_c n_c        se(m)² = C/(C − 1) · Σ_c (y_c − m n_c)² / (Σ_c n_c)²

with y_c the sum over the tokens of prompt c, n_c their number, and C the number of prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from relex_merge.report.estimate import Estimate

Array: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClusteredSums:
    """A quantity summed over the tokens of each prompt.

    totals: float64 (C,), Σ of the quantity. counts: float64 (C,), the number of tokens.
    """

    totals: Array
    counts: Array

    def mean(self) -> Estimate:
        """Return the mean over all tokens; the standard error is over prompts (module text)."""
        return ratio(self.totals, self.counts)


def by_cluster(values: Array, counts: Array, clusters: npt.NDArray[np.int64]) -> ClusteredSums:
    """Sum what was measured for each response over the responses to the same prompt.

    Args:
        values: float64 (N,), a sum over the tokens of each response.
        counts: float64 (N,), the tokens of each response.
        clusters: int64 (N,), which prompt each response answers; any numbers.

    Returns:
        The sums in the order of the sorted prompt numbers.
    """
    names, index = np.unique(clusters, return_inverse=True)
    totals, tokens = (np.zeros(len(names)) for _ in range(2))
    np.add.at(totals, index, values)
    np.add.at(tokens, index, counts)
    return ClusteredSums(totals, tokens)


def ratio(numerators: Array, denominators: Array) -> Estimate:
    """Return Σ numerators / Σ denominators with its linearised standard error.

    Args:
        numerators: float64 (C,), one sum for each prompt.
        denominators: float64 (C,), likewise; their sum is not zero.
    """
    whole = float(denominators.sum())
    value = float(numerators.sum()) / whole
    clusters = len(numerators)
    if clusters < 2:
        return Estimate(value, None)
    residuals = numerators - value * denominators
    variance = clusters / (clusters - 1) * float(residuals @ residuals) / whole**2
    return Estimate(value, variance**0.5)


def skill(predicted: ClusteredSums, standing_still: ClusteredSums) -> Estimate | None:
    """Return 1 − KL(p_T ‖ p_predicted) / KL(p_T ‖ p_h), the functional backtest's skill.

    Both divergences are means over the same tokens, so their ratio is Σ_c a_c / Σ_c b_c, and the
    standard error is the one of that ratio, the prompts being the units (module text).

    Args:
        predicted: sums of KL(p_T ‖ p_predicted), θ_T being the last observed checkpoint and the
            prediction being made from the first h checkpoints.
        standing_still: sums of KL(p_T ‖ p_h) over the same tokens: h is the last checkpoint that
            the prediction saw.

    Returns:
        The skill: 1 is a perfect prediction, 0 is no better than standing still. None where
        standing still diverges nowhere, so that there is nothing to predict.
    """
    if not standing_still.totals.sum() > 0:
        return None
    share = ratio(predicted.totals, standing_still.totals)
    return Estimate(1 - share.value, share.stderr)
