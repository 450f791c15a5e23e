"""The damped line: held back as its trials within the history say."""

from __future__ import annotations

import numpy as np
import pytest

from relex_merge.trajectory.predictors.damped import nodes, pairs, run_trials
from relex_merge.trajectory.predictors.history import RANK_1
from tests.support.predictions import EVEN, along, coefficient, of_one, weights
from tests.support.reference import UNEVEN, deltas


def test_damped_lies_between_standing_still_and_the_line() -> None:
    M = along(np.sqrt(EVEN)) + 0.05 * np.random.default_rng(2).standard_normal((30, 40))
    line = coefficient("linear", M, EVEN, 200.0)
    found = coefficient("damped", M, EVEN, 200.0)
    assert 1 < found < line
    truth = np.sqrt(200 / 30)
    assert abs(found - truth) < 0.5 * abs(line - truth)


def test_damped_holds_back_more_the_further_it_reaches() -> None:
    M = along(np.sqrt(EVEN)) + 0.05 * np.random.default_rng(2).standard_normal((30, 40))
    shares = []
    for target in (60.0, 200.0, 800.0):
        line, found = (coefficient(name, M, EVEN, target) for name in ("linear", "damped"))
        shares.append((found - 1) / (line - 1))
    assert shares[0] > 1.1 * shares[1] > 1.2 * shares[2] > 0


def test_damped_leaves_an_exact_line_alone() -> None:
    assert coefficient("damped", along(EVEN), EVEN, 200.0) == pytest.approx(200 / 30, rel=1e-6)


def test_trials_hold_the_errors_of_explicit_predictions() -> None:
    M = deltas(7, UNEVEN, 40)
    trials = run_trials(of_one(M @ M.T, UNEVEN), RANK_1)
    which = pairs(UNEVEN)
    assert len(which) == len(trials.ratio) > 8
    scale = trials.missing[0, 0] / ((M[which[0][1]] - M[which[0][0] - 1]) ** 2).sum()
    for p, (h, j) in enumerate(which):
        line = M[:h].T @ weights("linear", M[:h] @ M[:h].T, UNEVEN[:h], UNEVEN[j])
        a, b = line - M[h - 1], M[j] - M[h - 1]
        found = (trials.missing[0, p], trials.along[0, p], trials.length[0, p])
        assert found == pytest.approx((b @ b * scale, a @ b * scale, a @ a * scale), rel=1e-6)
        assert trials.ratio[p] == UNEVEN[j] / UNEVEN[h - 1]


@pytest.mark.parametrize("T", [4, 5, 6, 10])
def test_damped_does_not_hang_on_rounding_where_trials_are_few(T: int) -> None:
    M = along(np.sqrt(EVEN[:T])) + 0.5 * np.random.default_rng(2).standard_normal((T, 40))
    found = []
    for seed in range(8):
        noise = 1e-15 * np.random.default_rng(seed).standard_normal((T, T))
        found.append(weights("damped", M @ M.T * (1 + noise + noise.T), EVEN[:T], 4.0 * T))
    np.testing.assert_allclose(found[1:], [found[0]] * 7, atol=1e-6)


def test_a_longer_history_adds_cuts_and_changes_none() -> None:
    for T in range(3, 60):
        assert nodes(np.arange(1.0, T + 1)) == [n for n in nodes(np.arange(1.0, 80)) if n <= T]
