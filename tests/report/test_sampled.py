"""What a report says of a sample: errors beside the figures, and no verdict on an unclear sign."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from relex_merge.report.html import render_html
from relex_merge.report.sampled import error_cell, sample_lines, with_sample
from relex_merge.report.terminal import render_text
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.sampling.estimate import Sampled
from relex_merge.trajectory.sampling.plan import draw_by_request, draw_by_tensor
from relex_merge.trajectory.statistics import TensorStatistics
from tests.support.report_cases import QWEN, Trajectory, make, report_of

STEPS = np.arange(1.0, 16.0)
TARGET = 45.0
HELD_OUT = np.append(np.ones(12, dtype=bool), np.zeros(3, dtype=bool))


def sample(run: Trajectory, share: float, seed: int = 0, requests: int = 0) -> Sampled:
    sizes = [M.shape[1] for M in run.deltas.values()]
    wanted = int(share * sum(sizes))
    plan = draw_by_tensor(list(run.deltas), sizes, wanted, seed=seed)
    if requests:
        plan = draw_by_request(list(run.deltas), sizes, wanted, seed=seed, requests=requests)
    found = Sampled(plan, run.steps)
    for cell in plan.drawn:
        parts = {}
        for piece in cell.pieces:
            name = plan.names[piece.tensor]
            D = run.deltas[name][:, piece.start : piece.stop]
            base = run.base[name][piece.start : piece.stop]
            parts[piece.tensor] = TensorStatistics(
                D @ D.T, float(base @ base), D.shape[1], D.shape[1]
            )
        found.add(cell, parts)
    return found


def reported(found: Sampled, observed: Any = None, dtype: str = "float32") -> Any:
    chosen = np.ones(len(found.steps), dtype=bool) if observed is None else observed
    everything = found.statistics()
    parameters = dict.fromkeys(everything.tensors, Parameters(TARGET))
    holdout = None if observed is None else everything
    report = report_of(everything.select(chosen), TARGET, dtype=dtype, holdout=holdout)
    return with_sample(report, found, parameters, chosen)


def test_the_verdict_is_that_of_all_numbers_or_none() -> None:
    words = []
    for walk in (0.05, 0.5, 0.7, 6.0):
        run = make(STEPS, d=4000, walk=walk, names=QWEN[:4])
        exact, report = report_of(run.statistics(), TARGET), reported(sample(run, 0.1))
        word = report["verdict"]["verdict"]
        words.append(word)
        if report["sample"]["settled"]:
            assert word == exact["verdict"]["verdict"], walk
        else:
            assert word == "sample too small to tell"
            assert "is not clear, and the verdict hangs on it" in report["verdict"]["reasons"][0]
    assert words[0] == "extrapolate"
    assert words[-1] == "do not extrapolate"
    assert "sample too small to tell" in words


def test_intervals_cover_what_all_numbers_say() -> None:
    run = make(STEPS, d=8000, walk=0.2, names=QWEN[:4])
    exact = report_of(run.statistics(), TARGET)["model"]
    inside = []
    for seed in range(5):
        model = reported(sample(run, 0.1, seed))["model"]
        for figure in ("explained_variance", "straightness", "backtest_skill"):
            error = model["standard_errors"][figure]
            inside.append(abs(model[figure] - exact[figure]) < 2.13 * error)
    assert np.mean(inside) > 0.8


def test_all_numbers_leave_no_error() -> None:
    run = make(STEPS, d=500)
    report, exact = reported(sample(run, 1)), report_of(run.statistics(), TARGET)
    errors = report["model"]["standard_errors"]
    assert errors == pytest.approx(dict.fromkeys(errors, 0.0), abs=1e-9)
    assert report["model"]["backtest_skill"] == pytest.approx(exact["model"]["backtest_skill"])
    assert report["verdict"] == exact["verdict"]
    assert report["gaps"] == []


def test_few_requests_leave_tensors_out_and_the_model_whole() -> None:
    run = make(STEPS, d=4000)
    exact, report = report_of(run.statistics(), TARGET), reported(sample(run, 0.3, requests=8))
    assert len(report["tensors"]) < len(QWEN)
    assert report["model"]["numel"] == 4000 * len(QWEN)
    assert report["kinds"]["q_proj"]["numel"] == 3 * 4000
    off = abs(report["model"]["backtest_skill"] - exact["model"]["backtest_skill"])
    assert off < 5 * report["model"]["standard_errors"]["backtest_skill"]
    reason = next(g["reason"] for g in report["gaps"] if g["part"] == "tensors")
    assert f"of {len(QWEN)} tensors" in reason


def test_held_out_checkpoints_are_judged_from_the_sample_too() -> None:
    report = reported(sample(make(STEPS, d=2000), 0.2), HELD_OUT)
    assert report["sample"]["settled"]
    assert report["verdict"]["verdict"] == "extrapolate"
    assert report["holdout"][-1]["skill"]["method"] > 0


def test_the_table_shows_errors_below_the_model_and_says_what_was_read() -> None:
    report = reported(sample(make(STEPS, d=2000), 0.1))
    lines = render_text(report, 120).splitlines()
    assert sample_lines(report)[0] in lines
    assert sample_lines(report)[0].startswith("sampled: ")
    row = next(i for i, line in enumerate(lines) if line.startswith("whole model"))
    assert lines[row + 1].strip().startswith("standard error")
    assert error_cell(report["model"], "backtest_skill", "+.2f") in lines[row + 1]
    exact = render_text(report_of(make(STEPS).statistics(), TARGET))
    assert "sampled" not in exact
    assert "standard error" not in exact


def test_page_and_figure_say_that_they_show_estimates() -> None:
    found = sample(make(STEPS, d=12000, names=QWEN[:2]), 0.1)
    report = reported(found)
    page = render_html(report, found.statistics())
    assert sample_lines(report)[0] in page
    for entry in report["tensors"].values():
        error = error_cell(entry, "backtest_skill", "+.2f")
        assert error.startswith("±")
        assert f" {error}</td>" in page
