"""What sampled responses look like: how long, how often cut off, how repetitive.

A model that was moved too far often shows it without any label: it never ends, or says one thing
again and again. Repetition is seq-rep-4 of Welleck et al., *Neural Text Generation with
Unlikelihood Training* (2020, arXiv 1908.04319): of the 4-grams of tokens of one response the share
that repeats an earlier one, 1 − distinct / all; 0 for a response of fewer than 4 tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from relex_merge.evaluation.estimates import by_cluster
from relex_merge.evaluation.tokens import Item
from relex_merge.report.estimate import Estimate

GRAM = 4


@dataclass(frozen=True)
class ResponseStatistics:
    """Means over responses; the standard errors are over prompts.

    responses: how many. length: tokens of a response, its end token included. truncated: share
    of responses without an end token. repetition: mean share of repeated 4-grams, 0 to 1.
    """

    responses: int
    length: Estimate
    truncated: Estimate
    repetition: Estimate


def describe(responses: Sequence[Item], ends: Collection[int]) -> ResponseStatistics:
    """Describe sampled responses.

    Args:
        responses: items with responses, at least one.
        ends: ids that end a response (:func:`relex_merge.evaluation.sampling.end_tokens`).
    """
    clusters = np.array([item.cluster for item in responses])
    ones = np.ones(len(responses))

    def mean(values: Sequence[float]) -> Estimate:
        return by_cluster(np.array(values, dtype=np.float64), ones, clusters).mean()

    return ResponseStatistics(
        len(responses),
        mean([len(item.response) for item in responses]),
        mean([item.response[-1] not in ends for item in responses]),
        mean([repeated(item.response) for item in responses]),
    )


def repeated(tokens: Sequence[int]) -> float:
    """Return the share of 4-grams that repeat an earlier one, 0 to 1."""
    grams = [tuple(tokens[i : i + GRAM]) for i in range(len(tokens) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
