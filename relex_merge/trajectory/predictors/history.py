"""What a predictor may know: G and the steps of the checkpoints before a cut, and nothing later.

A history of T checkpoints can be cut at any h ≤ T; what is costly to find (decompositions, the
errors of predictions within the history) is found once and shared by all cuts of the same series.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from relex_merge.trajectory.gram import Array, rescaled
from relex_merge.trajectory.spectra import Spectra, spectra

FEWEST_FITTED = 3  # two checkpoints give a direction and a slope, but no way to see noise


def before_cut(steps: Array, ratio: float) -> int:
    """Return how many checkpoints lie at or before s_T / ratio (a step exactly there counts)."""
    return int(np.count_nonzero(steps <= steps[-1] / ratio * (1 + 1e-12)))


@dataclass(frozen=True)
class History:
    """The first ``len(steps)`` checkpoints of N tensors.

    Attributes:
        grams: (N, T, T) of a series of which this is the beginning; only [:h, :h] is ever read,
            h = len(steps). In one unit for all tensors, see :func:`of`.
        steps: (h,) ascending.
        found: What cuts of the series share.
    """

    grams: Array
    steps: Array
    found: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @staticmethod
    def of(grams: Array, steps: Array) -> History:
        """Return the history of G (N, T, T) at ``steps`` (T,) ascending, in a unit near 1."""
        return History(rescaled(np.asarray(grams, np.float64)), np.asarray(steps, np.float64))

    @property
    def G(self) -> Array:  # noqa: N802  # the mathematics' own letter
        """(N, h, h): the Gram matrices of this history."""
        h = len(self.steps)
        return self.grams[:, :h, :h]

    @property
    def spectra(self) -> Spectra:
        """The decomposition of every G."""
        key = ("spectra", len(self.steps))
        if key not in self.found:
            self.found[key] = spectra(self.G)
        found: Spectra = self.found[key]
        return found

    def first(self, h: int) -> History:
        """Return what was known after the first h checkpoints."""
        return History(self.grams, self.steps[:h], self.found)

    def rows(self, tensors: Sequence[int]) -> History:
        """Return the history of some of the tensors."""
        return History(self.grams[tensors], self.steps)


@dataclass(frozen=True)
class FitParameters:
    """How coefficients are fitted.

    Attributes:
        rank: How many leading directions are kept.
        window: How many of the last checkpoints enter; None for all, or the predictor's own choice.
        degree: Of the polynomial, where a polynomial is fitted.
    """

    rank: int = 1
    window: int | None = None
    degree: int = 1

    def shortened(self, T: int, needs: int) -> FitParameters:
        """Return these parameters with rank and window no wider than T checkpoints.

        needs: the fewest checkpoints that the window may hold.
        """
        fewest = max(self.degree + 1, needs)
        window = None if self.window is None else max(min(self.window, T), fewest)
        return FitParameters(min(self.rank, T), window, self.degree)


RANK_1 = FitParameters()

# (history of h checkpoints, target steps (J,), how to fit) → W (N, J, h), the weight vectors of J
# predictions for N tensors; N is 1 where W does not depend on G
Rule: TypeAlias = Callable[[History, Array, FitParameters], Array]
