"""Files of 16 bits: weights cannot tell where a straight run would not pass either."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from relex_merge.trajectory.backtests.rounding import Rounding, rounding_control
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics
from tests.support.report_cases import Trajectory, report_of

STEPS = np.arange(1.0, 31)
TARGET = 120.0


def run(size: float, *, law: str = "line", d: int = 3000) -> Trajectory:
    """Weights of a model whose updates have the given size; "stops": it stands still half-way."""
    rng = np.random.default_rng(0)
    x = STEPS / STEPS[-1]
    if law == "stops":
        x = np.minimum(x, 0.4)
    names = ("a", "b")
    walk = (0.1 / np.sqrt(len(x)) * rng.standard_normal((len(x), d))).cumsum(axis=0)
    return Trajectory(
        STEPS,
        {name: 0.05 * rng.standard_normal(d) for name in names},
        {name: size * (np.outer(x, rng.standard_normal(d)) + walk) for name in names},
    )


def stored(exact: Trajectory, dtype: str, *, base_exact: bool = False) -> Trajectory:
    """The run as files of ``dtype`` hold it; base_exact: the base was such a file already."""

    def rounded(w: Array) -> Array:
        kept = torch.from_numpy(w).to(getattr(torch, dtype))
        return np.asarray(kept.double().numpy())

    base = {name: rounded(w) for name, w in exact.base.items()}
    start = base if base_exact else exact.base
    deltas = {name: rounded(start[name] + M) - base[name] for name, M in exact.deltas.items()}
    return Trajectory(STEPS, base, deltas)


def control(of: Trajectory, dtype: str) -> Rounding:
    tensors = of.statistics().tensors.values()
    found = rounding_control(
        np.asarray([t.gram[-1, -1] for t in tensors]),
        np.asarray([t.base_squared_norm for t in tensors]),
        STEPS,
        dtype,
        Parameters(TARGET),
        TARGET / STEPS[-1],
    )
    assert found is not None
    return found


def verdict(of: Trajectory, dtype: str) -> dict[str, Any]:
    found: dict[str, Any] = report_of(of.statistics(), TARGET, dtype=dtype)["verdict"]
    return found


SIZES = {"bfloat16": (2e-5, 1e-4, 4e-4), "float16": (2e-6, 2e-5, 5e-5)}


@pytest.mark.parametrize(("dtype", "size"), [(d, s) for d, sizes in SIZES.items() for s in sizes])
def test_the_share_of_rounding_is_estimated_from_norms_alone(dtype: str, size: float) -> None:
    exact = run(size)
    files = stored(exact, dtype)
    error = files.whole()[-1] - exact.whole()[-1]
    truth = (error @ error) / (error @ error + exact.whole()[-1] @ exact.whole()[-1])
    assert control(files, dtype).share == pytest.approx(truth, abs=0.06)


@pytest.mark.parametrize("size", SIZES["bfloat16"])
def test_the_control_has_the_skill_of_a_straight_run_in_such_files(size: float) -> None:
    files = stored(run(size), "bfloat16")
    measured = report_of(files.statistics(), TARGET, dtype="bfloat16")["model"]
    expected = control(files, "bfloat16")
    assert expected.skill is not None
    error, measured_error = 1 - expected.skill, 1 - measured["backtest_skill"]
    assert error == pytest.approx(measured_error, rel=0.4)
    assert expected.straightness == pytest.approx(measured["straightness"], rel=0.2)


@pytest.mark.parametrize("base_exact", [False, True])
def test_a_good_run_in_coarse_files_is_not_advised_against(base_exact: bool) -> None:
    exact = run(1e-4)
    assert verdict(exact, "float32")["verdict"] == "extrapolate"
    found = verdict(stored(exact, "bfloat16", base_exact=base_exact), "bfloat16")
    assert found["verdict"] == "weights cannot tell"
    assert "The files are bfloat16" in found["reasons"][0]
    assert "relex-merge evaluate RECIPE" in found["reasons"][0]
    assert not any("speeds up" in reason for reason in found["reasons"])


def test_a_held_out_checkpoint_in_coarse_files_proves_as_little() -> None:
    files = stored(run(1e-4), "bfloat16")
    report = report_of(files.statistics(20), 30.0, dtype="bfloat16", holdout=files.statistics())
    assert report["holdout"][-1]["skill"]["method"] < 0
    assert report["verdict"]["verdict"] == "weights cannot tell"


def test_a_bad_run_whose_movement_is_no_rounding_is_still_advised_against() -> None:
    files = stored(run(0.02, law="stops"), "bfloat16")
    assert verdict(files, "bfloat16")["verdict"] == "do not extrapolate"


@pytest.mark.parametrize("law", ["line", "stops"])
@pytest.mark.parametrize("size", [1e-5, 1e-3])
def test_float32_files_are_judged_as_ever(size: float, law: str) -> None:
    found = verdict(run(size, law=law), "float32")
    assert found["verdict"] in ("extrapolate", "do not extrapolate")
    assert not any("rounding" in reason for reason in found["reasons"])


def test_straightness_that_rounding_explains_is_explained_first() -> None:
    files = stored(run(1e-3), "bfloat16")
    found = report_of(files.statistics(), 45.0, dtype="bfloat16")
    assert found["model"]["straightness"] < 0.5
    assert found["verdict"]["verdict"] == "extrapolate"
    assert "The files are bfloat16" in found["verdict"]["reasons"][0]
    assert "cannot tell" not in found["verdict"]["reasons"][0]


def test_without_the_bases_norm_nothing_is_estimated() -> None:
    files = stored(run(1e-4), "bfloat16").statistics()
    unknown = {
        name: TensorStatistics(t.gram, float("nan"), t.moved, t.numel)
        for name, t in files.tensors.items()
    }
    report = report_of(SeriesStatistics(STEPS, unknown), TARGET, dtype="bfloat16")
    assert report["verdict"]["verdict"] == "do not extrapolate"


def test_a_tensor_of_zeros_or_at_rest_does_no_harm() -> None:
    files = stored(run(1e-4), "bfloat16").statistics()
    T = len(STEPS)
    tensors = {
        **files.tensors,
        "rest": TensorStatistics(np.zeros((T, T)), float("nan"), 0, 9),
        "zeros": TensorStatistics(np.outer(STEPS, STEPS) * 1e-12, 0.0, 9, 9),
    }
    report = report_of(SeriesStatistics(STEPS, tensors), TARGET, dtype="bfloat16")
    assert report["verdict"]["verdict"] == "weights cannot tell"
