"""What a predictor may know: G and the steps of the checkpoints before a cut, and nothing later.

A history of T checkpoints can be cut at any h ≤ T; what is costly to find (decompositions, the
errors of predictions within the history) is found once and shared by all cuts of the same series.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.spectra import Spectra, spectra


@dataclass(frozen=True)
class History:
    """The first ``len(steps)`` checkpoints of N tensors.

    grams: (N, T, T) in weight², of a series of which this is the beginning; only [:h, :h] is ever
    read, h = len(steps). steps: (h,) ascending. found: what cuts of the series share.
    """

    grams: Array
    steps: Array
    found: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

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
        """What was known after the first h checkpoints."""
        return History(self.grams, self.steps[:h], self.found)

    def rows(self, tensors: Sequence[int]) -> History:
        """The history of some of the tensors."""
        return History(self.grams[tensors], self.steps)


def of_one(gram: Array, steps: Array) -> History:
    """The history of one tensor: G (T, T) at ``steps`` (T,) ascending."""
    return History(np.asarray(gram, dtype=np.float64)[np.newaxis], np.asarray(steps, np.float64))


# (history of h checkpoints, target steps (J,)) → W (N, J, h); N is 1 where W does not depend on G
Rule: TypeAlias = Callable[[History, Array], Array]
