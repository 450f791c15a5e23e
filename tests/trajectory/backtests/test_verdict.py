"""The verdict on runs of known law, its reasons, and the report at its edges."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from relex_merge.errors import RelexError
from relex_merge.report import VERDICTS
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics
from tests.support.report_cases import Trajectory, make, report_of

EVEN = np.arange(1.0, 41)


def verdict(run: Trajectory, target: float, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = report_of(run.statistics(), target, **options)["verdict"]
    assert found["verdict"] in VERDICTS
    assert found["reasons"]
    return found


@pytest.mark.parametrize("seed", range(3))
def test_a_straight_run_may_be_extrapolated(seed: int) -> None:
    found = verdict(make(EVEN, seed=seed), 160.0)
    assert found["verdict"] == "extrapolate"
    assert found["supported_target"] >= 160


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("law", "walk"), [(0.5, 0.05), (1.0, 50.0)], ids=["slowing down", "random walk"]
)
def test_a_run_that_slows_down_or_wanders_may_not(law: float, walk: float, seed: int) -> None:
    assert (
        verdict(make(EVEN, seed=seed, law=law, walk=walk), 160.0)["verdict"] == "do not extrapolate"
    )


def test_a_run_that_turns_may_not_be_extrapolated() -> None:
    rng = np.random.default_rng(0)
    turn = EVEN / EVEN[-1] * np.pi
    M = np.stack([np.sin(turn), 1 - np.cos(turn)], axis=1) @ rng.standard_normal((2, 500))
    found = verdict(Trajectory(EVEN, {"w": np.ones(500)}, {"w": M}), 160.0)
    assert found["verdict"] == "do not extrapolate"


def test_too_few_checkpoints_to_tell() -> None:
    found = verdict(make(np.arange(1.0, 7)), 60.0)
    assert found["verdict"] == "not enough checkpoints to tell"
    assert "only 0 of 6 checkpoints" in found["reasons"][0]


def test_reasons_say_what_a_practitioner_needs() -> None:
    reasons = "\n".join(verdict(make(EVEN, law=0.5), 160.0)["reasons"])
    assert "fitted on the first 10 of 40 checkpoints" in reasons
    assert "slows down" in reasons
    assert "random walk" in reasons


def test_the_furthest_supported_target_lies_between_what_works_and_what_does_not() -> None:
    found = verdict(make(EVEN, law=0.8, white=0.01), 400.0)
    assert found["supported_target"] is None or found["supported_target"] < 400


def test_a_held_out_checkpoint_that_was_missed_overrules_the_backtests() -> None:
    steps = np.append(EVEN, [80.0, 120.0])
    run = make(steps)
    for M in run.deltas.values():
        M[-2:] = M[-3] + (M[-2:] - M[-3]) / 50  # the real run all but stopped after the window
    observed = run.statistics(40)
    assert report_of(observed, 120.0)["verdict"]["verdict"] == "extrapolate"
    given = report_of(observed, 120.0, holdout=run.statistics())["verdict"]
    assert given["verdict"] == "do not extrapolate"
    assert "Held-out checkpoint at step 120" in given["reasons"][0]


def test_checkpoints_too_coarse_in_dtype_are_named() -> None:
    run = make(EVEN)
    for M in run.deltas.values():
        M[:, 10:] = 0.0
    assert any("2.5%" in reason for reason in verdict(run, 80.0, dtype="bfloat16")["reasons"])
    assert not any("2.5%" in reason for reason in verdict(run, 80.0, dtype="float32")["reasons"])


def finite(value: object) -> bool:
    """True when a JSON value holds no NaN or infinity and nothing but JSON types."""
    json.dumps(value, allow_nan=False)
    return True


def at_rest(T: int, d: int = 8) -> TensorStatistics:
    return TensorStatistics(np.zeros((T, T)), 1.0, 0, d)


def test_a_tensor_that_never_moves_has_no_figures_and_disturbs_none() -> None:
    statistics = make(EVEN).statistics()
    tensors = {**statistics.tensors, "model.layers.0.mlp.gate_proj.weight": at_rest(len(EVEN))}
    with_rest = report_of(SeriesStatistics(EVEN, tensors), 80.0)
    assert finite(with_rest)
    still = with_rest["tensors"]["model.layers.0.mlp.gate_proj.weight"]
    assert [still[key] for key in ("explained_variance", "r2", "straightness", "angle")] == [
        None
    ] * 4
    assert still["moved"] == 0
    without = report_of(statistics, 80.0)
    assert with_rest["summary"] == without["summary"]


def test_a_model_that_never_moves_is_reported_as_such() -> None:
    report = report_of(SeriesStatistics(EVEN, {"w": at_rest(len(EVEN))}), 80.0)
    assert finite(report)
    assert report["verdict"]["verdict"] == "not enough checkpoints to tell"
    assert "No weight moved at all." in report["verdict"]["reasons"]


def steps_of(T: int) -> Array:
    return np.arange(1.0, T + 1)


@pytest.mark.parametrize("T", [2, 3, 4, 5])
def test_the_shortest_series_have_a_report(T: int) -> None:
    report = report_of(make(steps_of(T), names=("w",)).statistics(), 4.0 * T)
    assert finite(report)
    assert report["verdict"]["verdict"] in ("not enough checkpoints to tell", "do not extrapolate")


def test_reconstructing_an_observed_step_is_no_extrapolation() -> None:
    run = make(EVEN, names=("w",), walk=0.3)
    report = report_of(run.statistics(), 20.0, Parameters(20.0, rank=2, mode="reconstruct"))
    M = run.deltas["w"]
    V = np.linalg.svd(M, full_matrices=False)[2][:2]
    error = np.linalg.norm(M[19] @ V.T @ V - M[19]) / np.linalg.norm(M[19])
    assert report["reconstruction"]["relative_error"] == pytest.approx(error, rel=1e-9)
    assert report["ratio"] is None
    assert "nothing is extrapolated" in report["verdict"]["reasons"][0]


def test_every_direction_together_is_not_called_a_random_walk() -> None:
    asked = Parameters(5.0, rank=5, mode="reconstruct")
    found = verdict(make(steps_of(5), names=("w",)), 5.0, parameters=asked)
    assert "random walk's" not in "".join(found["reasons"])


def test_two_checkpoints_of_which_one_is_at_step_zero_have_a_report() -> None:
    report = report_of(make(np.array([0.0, 2.0]), names=("w",)).statistics(), 20.0)
    assert finite(report)
    assert report["verdict"]["verdict"] == "not enough checkpoints to tell"


def test_a_target_a_hair_beyond_the_last_step_is_no_fault() -> None:
    report = report_of(make(EVEN).statistics(), float(np.nextafter(40.0, 41.0)))
    assert finite(report)
    assert report["model"]["backtest_skill"] is None


def test_a_recipe_without_tensors_is_refused() -> None:
    with pytest.raises(RelexError, match="no tensor"):
        report_of(SeriesStatistics(EVEN, {}), 80.0)


def test_the_contracts_keys_are_there() -> None:
    report = report_of(make(EVEN).statistics(), 160.0)
    assert finite(report)
    contract = ("method", "base", "checkpoints", "target_step", "summary", "tensors", "verdict")
    assert set(contract) | {"versions"} <= report.keys()
    for key in ("explained_variance", "r2", "straightness", "backtest_skill"):
        values = report["summary"][key]
        per_tensor = [entry[key] for entry in report["tensors"].values()]
        assert values["min"] == min(per_tensor)
        assert values["max"] == max(per_tensor)
        assert values["mean"] == pytest.approx(np.mean(per_tensor))
        assert values["model"] == report["model"][key]


def test_the_report_follows_from_the_saved_gram_matrices_alone(tmp_path: Any) -> None:
    statistics = make(EVEN).statistics()
    statistics.save(tmp_path / "relex_gram.safetensors")
    loaded = SeriesStatistics.load(tmp_path / "relex_gram.safetensors")
    assert report_of(loaded, 160.0) == report_of(statistics, 160.0)
