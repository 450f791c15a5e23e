"""The method's parameters: what is accepted, what is refused, and which w they ask for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from relex_merge.errors import RelexError
from relex_merge.trajectory.parameters import Parameters

STEPS = np.asarray([1.0, 3.0, 4.0, 9.0, 11.0])


def deltas() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """M (5, 60): a line with noise."""
    rng = np.random.default_rng(0)
    return np.outer(STEPS, rng.normal(size=60)) + rng.normal(size=(5, 60))


def test_the_default_is_the_line_through_the_first_singular_direction() -> None:
    M = deltas()
    U, S, Vt = np.linalg.svd(M, full_matrices=False)
    line = np.polyfit(STEPS, U[:, 0] * S[0], 1)
    expected = np.polyval(line, 70.0) * Vt[0]
    w = Parameters(70).weights(M @ M.T, STEPS)
    np.testing.assert_allclose(M.T @ w, expected, rtol=1e-10)


def test_rank_degree_and_window_are_passed_on() -> None:
    M = deltas()
    U, S, Vt = np.linalg.svd(M, full_matrices=False)
    curves = np.polyfit(STEPS[1:], (U * S)[1:, :3], 2)
    expected = (np.asarray([20.0**2, 20.0, 1.0]) @ curves) @ Vt[:3]
    w = Parameters(20, rank=3, degree=2, window=4).weights(M @ M.T, STEPS)
    np.testing.assert_allclose(M.T @ w, expected, rtol=1e-9)


def test_reconstruct_is_the_truncated_svd_of_the_checkpoint_whatever_the_fit() -> None:
    M = deltas()
    U, S, Vt = np.linalg.svd(M, full_matrices=False)
    asked = Parameters(9, rank=2, degree=7, window=1, mode="reconstruct")
    asked.check(STEPS)
    w = asked.weights(M @ M.T, STEPS)
    np.testing.assert_allclose(M.T @ w, (U[3, :2] * S[:2]) @ Vt[:2], rtol=1e-10)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"target_step": float("nan")}, "target_step is nan"),
        ({"target_step": float("inf")}, "target_step is inf"),
        ({"target_step": -1}, "target_step is -1"),
        ({"degree": 0}, "degree is 0"),
        ({"mode": "predict"}, "mode is 'predict'; it can be extrapolate or reconstruct"),
    ],
)
def test_a_parameter_out_of_range_is_refused_by_name(
    parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(RelexError, match=message):
        Parameters(**{"target_step": 10, **parameters})


def test_blend_which_was_removed_is_refused_with_what_to_use_instead() -> None:
    with pytest.raises(RelexError, match=r"blend was removed; use auto, .* or name one of linear"):
        Parameters(10, predictor="blend")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rank": 0}, "rank is 0; with 5 checkpoints it must be 1 to 5"),
        ({"rank": 6}, "rank is 6; with 5 checkpoints it must be 1 to 5"),
        ({"rank": -1}, "rank is -1"),
        ({"window": 1}, "window is 1; .* window from 2 to 5"),
        ({"window": 0}, "window is 0"),
        ({"window": -2}, "window is -2"),
        ({"window": 6}, "window is 6"),
        ({"window": 3, "degree": 3}, "window is 3; a fit of degree 3 .* window from 4 to 5"),
        ({"degree": 5}, "degree"),
        ({"target_step": 5, "mode": "reconstruct"}, "5 was not .observed: 1, 3, 4, 9, 11"),
        ({"rank": 6, "target_step": 9, "mode": "reconstruct"}, "rank is 6"),
    ],
)
def test_a_parameter_that_does_not_fit_the_series_is_refused_by_name(
    parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(RelexError, match=message):
        Parameters(**{"target_step": 10, **parameters}).check(STEPS)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"target_step": 0},
        {"rank": 5},
        {"degree": 4},
        {"window": 2},
        {"window": 5},
        {"degree": 2, "window": 3},
        {"target_step": 11, "mode": "reconstruct", "rank": 5},
    ],
)
def test_parameters_at_the_edge_of_their_range_are_accepted_and_give_finite_weights(
    parameters: dict[str, Any],
) -> None:
    M = deltas()
    asked = Parameters(**{"target_step": 10, **parameters})
    asked.check(STEPS)
    assert np.isfinite(asked.weights(M @ M.T, STEPS)).all()


@pytest.mark.parametrize("T", [0, 1])
def test_fewer_than_two_checkpoints_are_no_trajectory(T: int) -> None:
    with pytest.raises(RelexError, match=f"at least two checkpoints besides the base, not {T}"):
        Parameters(10).check(STEPS[:T])


@pytest.mark.parametrize("predictor", ["auto", "sqrt"])
def test_reconstruction_has_no_predictor(predictor: str) -> None:
    with pytest.raises(RelexError, match="mode: extrapolate"):
        Parameters(5, mode="reconstruct", predictor=predictor)
