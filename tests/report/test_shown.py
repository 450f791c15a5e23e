"""The report in the terminal, as a figure and as a page."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relex_merge.errors import RelexError
from relex_merge.report import render_text, save_coefficients_plot, save_html, save_plot
from relex_merge.report.contents import Report
from relex_merge.report.maps import table_of
from relex_merge.report.plot import coefficients, draw, draw_coefficient
from relex_merge.report.style import new_figure
from relex_merge.report.table import WHY_A_LINE
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics
from tests.support.figures import clashes
from tests.support.report_cases import make, report_of

pytest.importorskip("matplotlib")

STEPS = np.arange(1.0, 31)
LABELS = (
    "rank-1 linear (recipe)",
    "rank-3 linear",
    "rank-1 quadratic",
    "per-weight least squares",
    "two-point line",
)


@pytest.fixture(scope="module")
def statistics() -> SeriesStatistics:
    return make(STEPS).statistics()


@pytest.fixture(scope="module")
def report(statistics: SeriesStatistics) -> Report:
    found: Report = report_of(statistics, 120.0)
    return found


def test_figure_holds_every_panel_and_series(report: Report, statistics: SeriesStatistics) -> None:
    axes = [a for f in draw(report, statistics).subfigs for a in f.axes if a.get_title()]
    titles = [a.get_title() for a in axes]
    assert titles[0] == "Spectrum"
    assert titles[1].startswith("First direction, R²")
    assert titles[2] == "Backtests"
    assert titles[3].startswith("Explained variance")
    assert titles[4] == "Backtest skill at 4×"
    assert all(a.get_xlabel() and a.get_ylabel() for a in axes[:3])
    spectrum, coefficient, tests = ({line.get_label(): line for line in a.lines} for a in axes[:3])
    assert {"whole model", "random walk"} <= spectrum.keys()
    np.testing.assert_allclose(
        np.cumsum(np.asarray(spectrum["whole model"].get_ydata())),
        np.asarray(report["model"]["spectrum"], np.float64),
    )
    c = np.asarray(report["model"]["coefficients"], np.float64)
    np.testing.assert_allclose(np.asarray(coefficient["observed"].get_ydata()), c / c[-1])
    assert np.asarray(coefficient["step 120, as written"].get_xdata()).tolist() == [120.0]
    assert set(LABELS) <= tests.keys()
    np.testing.assert_allclose(
        np.asarray(tests["rank-1 linear (recipe)"].get_xdata()),
        [t["ratio"] for t in report["backtests"]["grid"]],
    )
    assert np.asarray(tests["your ratio, 4×"].get_xdata())[0] == 4.0
    assert "recipe on all 30, expected" in tests


def test_a_recipe_that_is_no_baseline_gets_a_line_of_its_own(statistics: SeriesStatistics) -> None:
    report = report_of(statistics, 120.0, Parameters(120.0, rank=2))
    tests = draw(report, statistics).subfigs[0].axes[2]
    assert "this recipe" in [line.get_label() for line in tests.lines]


@pytest.mark.parametrize(
    "asked", [{"predictor": "sqrt"}, {"anchor": "last", "scale": 0.5}], ids=["sqrt", "scaled"]
)
def test_the_star_lies_on_the_curve_of_the_predictor(asked: dict[str, Any]) -> None:
    run = make(STEPS, law=0.5, walk=0.0, white=0.0, names=("w",)).statistics()
    report = report_of(run, 120.0, Parameters(120.0, **asked))
    figure = new_figure(4, 4)
    axes = figure.subplots()
    draw_coefficient(axes, report, coefficients(run))
    lines = {str(line.get_label()): np.asarray(line.get_xydata()) for line in axes.lines}
    (star,) = lines["step 120, as written"]
    curve = lines["sqrt" if "predictor" in asked else "linear, λ = 0.5"]
    np.testing.assert_allclose(curve[-1], star)
    if "predictor" in asked:  # the run's own law
        np.testing.assert_allclose(curve[:, 1], np.sqrt(curve[:, 0] / 30), rtol=1e-6)
        np.testing.assert_allclose(star, [120.0, 2.0], rtol=1e-6)


CASES: dict[str, tuple[Array, float, float]] = {
    "four checkpoints": (np.asarray([5.0, 10, 15, 20]), 80.0, 1.0),
    "75, none of the baselines": (np.arange(1.0, 76), 1000.0, 0.3),
}


@pytest.mark.parametrize("case", CASES)
def test_no_label_of_the_figure_touches_another(case: str) -> None:
    steps, target, law = CASES[case]
    kinds = ("self_attn.q_proj", "post_attention_layernorm", "mlp.experts.down_proj")
    names = tuple(f"model.layers.{i}.{kind}.weight" for i in range(36) for kind in kinds)
    run = make(steps, names=names, d=40, law=law, walk=1 - law).statistics()
    report = report_of(run, target, Parameters(target, predictor="sqrt", scale=0.7))
    assert clashes(draw(report, run)) == []


def test_map_has_a_cell_for_every_tensor(report: Report) -> None:
    layers, kinds, values = table_of(report, "explained_variance")
    assert layers == ["–", "0", "1", "2"]
    assert kinds == ["embed_tokens", "q_proj", "down_proj", "input_layernorm", "norm"]
    assert np.isfinite(values).sum() == len(report["tensors"])
    entry = report["tensors"]["model.layers.1.mlp.down_proj.weight"]
    assert values[2, 2] == entry["explained_variance"]


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_figure_is_written_in_the_format_of_its_suffix(
    report: Report, statistics: SeriesStatistics, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"report.{suffix}"
    save_plot(report, statistics, path)
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(start)


def test_an_unknown_format_is_refused(
    report: Report, statistics: SeriesStatistics, tmp_path: Path
) -> None:
    with pytest.raises(RelexError, match=r"report\.xyz: a plot can be .*png"):
        save_plot(report, statistics, tmp_path / "report.xyz")
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_remedy_is_named(
    report: Report,
    statistics: SeriesStatistics,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(RelexError, match=r"pip install 'matplotlib>=3.8'"):
        save_plot(report, statistics, tmp_path / "report.png")


def test_a_dollar_in_a_name_is_no_mathematics(tmp_path: Path) -> None:
    name = r"layers.0.$\frac$.weight"
    statistics = make(STEPS[:6], names=(name, "layers.1.w.weight")).statistics()
    save_plot(report_of(statistics, 12.0), statistics, tmp_path / "report.svg")
    save_coefficients_plot(statistics, [name], tmp_path / "coefficients.svg")
    assert "frac" in (tmp_path / "report.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("T", [2, 3, 10])
@pytest.mark.parametrize("moves", [True, False])
def test_the_smallest_reports_can_be_shown(T: int, moves: bool, tmp_path: Path) -> None:
    steps = np.arange(1.0, T + 1)
    at_rest = SeriesStatistics(steps, {"w": TensorStatistics(np.zeros((T, T)), 1.0, 0, 8)})
    statistics = make(steps, names=("w",)).statistics() if moves else at_rest
    report = report_of(statistics, 3.0 * T)
    assert "verdict:" in render_text(report)
    save_html(report, statistics, tmp_path / "report.html")  # with the figure
    if T == 2:
        save_plot(report, statistics, tmp_path / "report.png")


def test_a_reconstruction_can_be_shown(statistics: SeriesStatistics, tmp_path: Path) -> None:
    report = report_of(statistics, 10.0, Parameters(10.0, mode="reconstruct"))
    assert "nothing is extrapolated" in re.sub(r"\s+", " ", render_text(report))
    save_plot(report, statistics, tmp_path / "report.png")


def test_why_a_line_is_the_default_is_said_of_the_default_alone() -> None:
    statistics = make(np.arange(1.0, 13.0)).statistics()
    plain = report_of(statistics, 24.0)
    other = report_of(statistics, 24.0, Parameters(24.0, rank=3))
    assert WHY_A_LINE in " ".join(render_text(plain).split())
    assert WHY_A_LINE not in " ".join(render_text(other).split())
