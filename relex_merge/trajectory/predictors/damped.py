"""The line, held back the more the further it reaches: θ̂ = θ_T + φ(r) (θ̂_line − θ_T).

After the damped trends of time-series forecasting (Gardner & McKenzie, "Forecasting trends in time
series", Management Science 31, 1985), with a shrink that depends on the ratio r = s*/s_T, since
that is what a path that slows down depends on: φ(r) = β r^{−γ}, 0 ≤ β ≤ 1, γ ≥ 0. Both are fitted
to trials within the history, whose outcome is known: least squares of the errors relative to
standing still. A trial lays the line through the first h checkpoints and predicts checkpoint j > h.

A single trial, all that four checkpoints allow, says nothing of γ. It is ½ then, what holds a line
back to a path ∝ √s in the long run; in general, γ is pulled towards ½ by less than any data weigh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.predictors.basic import linear, stay
from relex_merge.trajectory.predictors.history import FEWEST_FITTED, FitParameters, History
from relex_merge.trajectory.predictors.minimise import minimise

GROWTH = 1.25  # between the cuts of a history, in checkpoints
USUAL = 0.5  # γ where the trials leave it open
_GRID = np.linspace(0.0, 3.0, 31)
_PULL = 1e-9  # towards USUAL, in units of the error of standing still


@dataclass(frozen=True)
class Trials:
    """P trials of the line on N tensors.

    The line's step from θ_h is a = θ̂_j − θ_h, what was missing is b = θ_j − θ_h; held back by φ it
    misses by ‖φ a − b‖² = ‖b‖² − 2 φ ⟨a, b⟩ + φ² ‖a‖².

    Attributes:
        ratio: (P,) s_j / s_h.
        late: (P,) s_j in units of the last step.
        missing: (N, P) ‖b‖², the squared error of standing still.
        along: (N, P) ⟨a, b⟩.
        length: (N, P) ‖a‖².
    """

    ratio: Array
    late: Array
    missing: Array
    along: Array
    length: Array


def damped(history: History, targets: Array, fit: FitParameters) -> Array:
    """Return W (N, J, h) for ``targets`` (J,)."""
    beta, gamma = shrink(run_trials(history, fit))
    ratio = np.asarray(targets, dtype=np.float64) / history.steps[-1]
    phi = (beta[:, np.newaxis] * ratio ** -gamma[:, np.newaxis])[:, :, np.newaxis]
    line, still = linear(history, targets, fit), stay(history, targets, fit)
    return np.asarray((1 - phi) * still + phi * line)


def shrink(trials: Trials) -> tuple[Array, Array]:
    """Return β and γ, each (N,), that bring the line closest to the outcomes of the trials."""
    weight = trials.late / np.where(trials.missing > 0, trials.missing, np.inf)
    along, length = weight * trials.along, weight * trials.length
    log_ratio, pull = np.log(trials.ratio), _PULL * trials.late.sum()

    def best(gamma: Array) -> tuple[Array, Array]:
        reach = np.exp(-np.broadcast_to(gamma, (len(along),))[:, np.newaxis] * log_ratio)
        b, c = (reach * along).sum(axis=1), (reach**2 * length).sum(axis=1)
        beta = np.clip(b / np.where(c > 0, c, np.inf), 0.0, 1.0)
        return beta, beta**2 * c - 2 * beta * b + pull * np.abs(gamma - USUAL)

    gamma = minimise(lambda g: best(g)[1], _GRID)
    return best(gamma)[0], gamma


def run_trials(history: History, fit: FitParameters) -> Trials:
    """Try the line within ``history``; another cut's trials are not repeated."""
    which = pairs(history.steps)
    todo = [pair for pair in which if (fit, pair) not in history.found]
    for h in sorted({h for h, _ in todo}):
        targets = [j for cut, j in todo if cut == h]
        for j, errors in zip(targets, _errors(history, fit, h, targets), strict=True):
            history.found[fit, (h, j)] = errors
    cut, target = (np.asarray(each) for each in zip(*which, strict=True))
    errors = np.stack([history.found[fit, pair] for pair in which], axis=2)
    s = history.steps
    return Trials(s[target] / s[cut - 1], s[target] / s[-1], *errors)


def _errors(history: History, fit: FitParameters, h: int, targets: Sequence[int]) -> list[Array]:
    """Return for each of ``targets`` (3, N) ‖b‖², ⟨a, b⟩ and ‖a‖² of the line through h."""
    past = history.first(h)
    lines = linear(past, history.steps[targets], fit.shortened(h, 2))
    found = []
    for i, j in enumerate(targets):
        a, b = np.zeros((len(lines), j + 1)), np.zeros(j + 1)
        a[:, :h] = lines[:, i]
        a[:, h - 1] -= 1.0
        b[j], b[h - 1] = 1.0, -1.0
        G = history.grams[:, : j + 1, : j + 1]
        Gb = G @ b
        Ga = (G @ a[:, :, np.newaxis])[:, :, 0]
        found.append(np.stack([np.maximum(Gb @ b, 0.0), (a * Gb).sum(1), (a * Ga).sum(1)]))
    return found


def pairs(steps: Array) -> list[tuple[int, int]]:
    """Return (h, j) of every trial in a history: cuts at nodes, targets there and at its end."""
    cuts = nodes(steps)
    ends = sorted({*cuts, len(steps)})
    return [(h, m - 1) for h in cuts for m in ends if m > h]


def nodes(steps: Array) -> list[int]:
    """Return the counts of checkpoints at which a history is cut, 3, 4, 5, 7 and so on.

    A longer history adds to them and changes none.
    """
    found, n = [], FEWEST_FITTED
    while n <= len(steps):
        if steps[n - 1] > 0:
            found.append(n)
        n = max(n + 1, int(n * GROWTH))
    return found
