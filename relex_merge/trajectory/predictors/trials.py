"""Predictions within a history whose outcome is known, for predictors that learn from them.

A trial fits on the first h checkpoints and predicts checkpoint j, h < j. Several predictors with
weights w_a give residuals Mᵀ(w_a − e_j), whose products R_ab = (w_a − e_j)ᵀ G (w_b − e_j) hold the
squared error of every one (the diagonal) and of every combination α with Σ α = 1, αᵀ R α.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.predictors.history import History, Rule

Indices: TypeAlias = npt.NDArray[np.int64]
FEWEST_FITTED = 3  # two checkpoints give a direction and a slope, but no way to see noise
GROWTH = 1.25  # between the cuts of a history, in checkpoints


@dataclass(frozen=True)
class Trials:
    """P trials of K predictors on N tensors.

    fitted: (P,) checkpoints before the cut; target: (P,) index of the predicted one; ratio: (P,)
    s_target / s_fitted; late: (P,) s_target in units of the last step. products: (N, P, K, K) R in
    weight²; still: (N, P) squared error of standing still.
    """

    fitted: Indices
    target: Indices
    ratio: Array
    late: Array
    products: Array
    still: Array


def nodes(steps: Array) -> list[int]:
    """Counts of checkpoints at which a history is cut: 3, 4, 5, 7, …; a longer history adds to them
    and changes none.
    """
    found, n = [], FEWEST_FITTED
    while n <= len(steps):
        if steps[n - 1] > 0:
            found.append(n)
        n = max(n + 1, int(n * GROWTH))
    return found


def before_cut(steps: Array, ratio: float) -> int:
    """How many checkpoints lie at or before s_T / ratio (a step exactly there counts)."""
    return int(np.count_nonzero(steps <= steps[-1] / ratio * (1 + 1e-12)))


def pairs(steps: Array) -> list[tuple[int, int]]:
    """(h, j) of every trial within a history: cuts at the nodes, targets there and at the end."""
    cuts = nodes(steps)
    ends = sorted({*cuts, len(steps)})
    return [(h, m - 1) for h in cuts for m in ends if m > h]


def run_trials(
    history: History, rules: Mapping[str, Rule], which: Sequence[tuple[int, int]]
) -> Trials:
    """Try ``rules`` in the trials ``which``: (h, j) pairs within the history."""
    names = tuple(rules)
    todo = [pair for pair in which if (names, pair) not in history.found]
    for h in sorted({h for h, _ in todo}):
        targets = np.asarray([j for cut, j in todo if cut == h])
        made, still = _products(history, rules, h, targets)
        for i, j in enumerate(targets):
            history.found[names, (h, int(j))] = made[:, i], still[:, i]
    results = [history.found[names, pair] for pair in which]
    fitted, target = np.asarray(which, dtype=np.int64).reshape(-1, 2).T
    s = history.steps
    return Trials(
        fitted,
        target,
        s[target] / s[fitted - 1],
        s[target] / s[-1],
        np.stack([products for products, _ in results], axis=1),
        np.stack([still for _, still in results], axis=1),
    )


def _products(
    history: History, rules: Mapping[str, Rule], h: int, targets: Indices
) -> tuple[Array, Array]:
    """(N, J, K, K) and (N, J): R and the error of standing still, fitted on h."""
    N, J, seen = len(history.grams), len(targets), int(targets.max()) + 1
    past = history.first(h)
    W = np.zeros((N, J, len(rules) + 1, seen))
    for k, rule in enumerate(rules.values()):
        W[:, :, k, :h] = rule(past, history.steps[targets])
    W[:, :, -1, h - 1] = 1.0
    W[:, np.arange(J), :, targets] -= 1.0
    R = W @ history.grams[:, np.newaxis, :seen, :seen] @ W.swapaxes(2, 3)
    return R[:, :, :-1, :-1], np.maximum(R[:, :, -1, -1], 0.0)
