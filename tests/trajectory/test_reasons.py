"""What a report says hangs together, and a base that is not the run's own is noticed."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from tests.support.report_cases import Trajectory, make, report_of

EVEN = np.arange(1.0, 31)


def random_report(seed: int) -> Any:
    """A report on a small series of random law, length, spacing, files and target."""
    rng = np.random.default_rng(seed)
    T = int(rng.integers(2, 25))
    steps = np.cumsum(rng.integers(1, 4, T)).astype(float) + float(rng.choice([0, 0, 40]))
    noise = rng.choice([0.0, 0.0, 0.05, 1.0, 20.0], 2)
    run = make(
        steps,
        names=("w", "v"),
        d=40,
        law=float(rng.choice([0.3, 0.8, 1.0, 1.0, 2.0])),
        walk=float(noise[0]),
        white=float(noise[1]),
        seed=seed,
    )
    if rng.random() < 0.2:
        for M in run.deltas.values():
            M[T // 2 :] = M[T // 2]  # the run stands still
    target = float(np.round(steps[-1] * rng.choice([0.5, 1.0, 1.01, 1.5, 3.0, 6.7, 13.3, 100])))
    rank = int(rng.integers(1, min(T, 3) + 1))
    return report_of(
        run.statistics(),
        target,
        Parameters(target, rank=rank),
        dtype=str(rng.choice(["float32", "bfloat16"])),
    )


def test_no_two_sentences_contradict_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    # Most of a report's time goes to predictors that the verdict does not look at.
    monkeypatch.setattr("relex_merge.trajectory.backtests.assessment.others", lambda _: ())
    for seed in range(80):
        report = random_report(seed)
        word, reasons = report["verdict"]["verdict"], report["verdict"]["reasons"]
        said, told = " ".join(reasons), f"seed {seed}: {report['verdict']}"
        tested = "Backtest at your ratio" in said
        assert tested == (report["model"]["backtest_skill"] is not None), told
        assert not (tested and "nothing that was measured speaks" in said), told
        assert not (tested and "cannot be backtested" in said), told
        assert not (tested and word == "nothing to extrapolate"), told
        assert (word == "nothing to extrapolate") == (report["ratio"] is None), told
        assert not ("slows down" in said and "speeds up" in said), told
        assert not ("no straighter than a random walk" in said and word == "extrapolate"), told
        supported, last = report["verdict"]["supported_target"], report["steps"][-1]
        assert supported is None or supported > last or word == "nothing to extrapolate", told
        if word == "extrapolate":
            assert tested, told
            assert "is closer to the truth" in said, told
            assert supported >= report["target_step"], told
            assert "No target beyond" not in said, told
            assert "support targets up to" not in said, told
        if limit := re.search(r"support targets up to about step (\d+)", said):
            assert last < float(limit[1]) < report["target_step"], told
        if "cannot tell here" in said:
            assert word == "weights cannot tell", told


def test_a_cut_with_two_checkpoints_is_no_backtest_for_anyone() -> None:
    found = report_of(make(np.arange(1.0, 11), white=0.0, walk=0.0).statistics(), 50.0)
    assert found["model"]["backtest_skill"] is None
    assert found["backtests"]["cut"] is None
    assert "cannot be backtested: only 2 of 10 checkpoints" in found["verdict"]["reasons"][0]


def test_a_target_that_was_observed_is_nothing_to_extrapolate() -> None:
    for target in (12.0, 30.0):
        found = report_of(make(EVEN).statistics(), target)["verdict"]
        assert found["verdict"] == "nothing to extrapolate"
        assert "nothing is extrapolated" in found["reasons"][0]


def with_base(offset: Array | float) -> Trajectory:
    """A straight run that is compared with a base ``offset`` away from its own."""
    run = make(EVEN, names=("w",), walk=0.0, white=0.0)
    return Trajectory(EVEN, run.base, {name: M + offset for name, M in run.deltas.items()})


def test_a_wrong_base_is_named() -> None:
    straight = make(EVEN, names=("w",), walk=0.0, white=0.0).deltas["w"]
    later = -1.2 * straight[-1]  # the base is a model from beyond the end of the run
    found = report_of(with_base(later).statistics(), 60.0)["verdict"]["reasons"][0]
    assert "come nearer to the base with the steps" in found
    assert "base_model" in found
    rng = np.random.default_rng(1)
    aside = 0.1 * rng.standard_normal(straight.shape[1])  # another model altogether
    found = report_of(with_base(aside).statistics(), 60.0)["verdict"]["reasons"][0]
    assert "base_model" in found


@pytest.mark.parametrize("law", [0.5, 1.0, 2.0])
def test_the_runs_own_base_is_not_suspected(law: float) -> None:
    reasons = report_of(make(EVEN, law=law).statistics(), 60.0)["verdict"]["reasons"]
    assert not any("base_model" in reason for reason in reasons)
