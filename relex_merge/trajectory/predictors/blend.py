"""The convex combination of predictors that did best on what was already observed.

w = Σ_a α_a w_a with α ≥ 0, Σ α = 1 (stacked regressions: Breiman, Machine Learning 24, 1996; the
constraint is what makes them work). α minimises the squared errors of the trials within the
history, each relative to standing still: Σ_p ω_p αᵀ R_p α, a quadratic programme with as many
unknowns as predictors. ω_p weighs trials whose ratio is near the target's, and late ones, most.
"""

from __future__ import annotations

import numpy as np

from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.predictors.history import History, Rule
from relex_merge.trajectory.predictors.simplex import minimise_quadratic
from relex_merge.trajectory.predictors.trials import Trials, pairs, run_trials

WIDTH = np.log(2.0)  # of the neighbourhood of the target's ratio, in log ratio


def relevance(trials: Trials, ratio: float) -> Array:
    """ω (P,): how much each trial tells of an extrapolation by ``ratio``."""
    near = min(ratio, float(trials.ratio.max()))
    return np.asarray(trials.late * np.exp(-0.5 * (np.log(trials.ratio / near) / WIDTH) ** 2))


def mixture(trials: Trials, ratio: float) -> Array:
    """α (N, K) for an extrapolation by ``ratio``."""
    still = np.where(trials.still > 0, trials.still, np.inf)
    weight = relevance(trials, ratio) / still
    R = (weight[:, :, np.newaxis, np.newaxis] * trials.products).sum(axis=1)
    return minimise_quadratic(R)


def blend(
    history: History, targets: Array, *, rules: dict[str, Rule], pooled: bool = False
) -> Array:
    """W (N, J, h) float64 for ``targets`` (J,), of the predictors ``rules``.

    pooled: one α for all tensors of the history, which are taken as one long vector.
    """
    trials = run_trials(history, rules, pairs(history.steps))
    trials = trials.pooled() if pooled else trials
    W = np.zeros((len(history.grams), len(targets), len(history.steps)))
    made = [rule(history, targets) for rule in rules.values()]
    for i, target in enumerate(targets):
        alpha = mixture(trials, float(target / history.steps[-1]))
        for a, each in enumerate(made):
            W[:, i] += alpha[:, a, np.newaxis] * each[:, i]
    return W
