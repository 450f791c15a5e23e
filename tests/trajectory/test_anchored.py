"""anchor and scale: θ_A + λ (θ̂(s*) − θ̂(s_T)), against sums formed in the space of weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from relex_merge.errors import RelexError
from relex_merge.trajectory.backtests.compared import method
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.predictors import PREDICTORS
from relex_merge.trajectory.predictors.history import History
from tests.support.reference import deltas

STEPS = np.array([1.0, 2, 3, 5, 8, 10, 11, 14])
M = deltas(3, STEPS, 200)
G = M @ M.T


def moved(**parameters: Any) -> Array:
    """M'w: the prediction minus the base."""
    return np.asarray(M.T @ Parameters(40, **parameters).weights(G, STEPS))


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 1.5])
def test_the_displacement_is_scaled_from_each_anchor(predictor: str, scale: float) -> None:
    fit: dict[str, Any] = {"predictor": predictor, "window": 6}
    there = moved(**fit)
    here = M.T @ Parameters(14, predictor=predictor, window=6).weights(G, STEPS)
    starts = {"line": here, "last": M[-1], "average": M[-6:].mean(axis=0)}
    for anchor, start in starts.items():
        found = moved(**fit, anchor=anchor, scale=scale)
        np.testing.assert_allclose(
            found, start + scale * (there - here), rtol=0, atol=1e-9 * np.abs(M).max()
        )


def test_the_plain_method_is_the_same_to_the_last_bit() -> None:
    plain = Parameters(40, rank=2).weights(G, STEPS)
    assert (Parameters(40, rank=2, anchor="line", scale=1.0).weights(G, STEPS) == plain).all()


def test_backtests_judge_what_is_written() -> None:
    asked = Parameters(40, anchor="last", scale=0.3)
    history = History.of(np.asarray([G[:5, :5]]), STEPS[:5])
    W = method([asked]).predict(history, np.asarray([14.0]))
    expected = Parameters(14, anchor="last", scale=0.3).weights(G[:5, :5], STEPS[:5])
    np.testing.assert_allclose(W[0, 0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"anchor": "first"}, "anchor is 'first'; it can be line, last, average"),
        ({"scale": float("nan")}, "scale is nan; it must be a number"),
        ({"anchor": "average"}, "say how many with window"),
        ({"mode": "reconstruct", "scale": 0.5}, "anchor and scale are for mode: extrapolate"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(RelexError, match=said):
        Parameters(40, **wrong)
