"""The report as one figure, for a model card or for print.

Top: spectrum against a random walk's, coefficient against step with fit and target, backtest skill
against ratio. Bottom: explained variance and skill of every tensor, layers × kinds of module.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from relex_merge.formatting import cell
from relex_merge.report.contents import BacktestsEntry, ForecastEntry, Report
from relex_merge.report.maps import draw_map, skill_map, variance_map
from relex_merge.report.style import COLOURS, GREY, MARKERS, RED, new_figure, save
from relex_merge.report.table import distinct
from relex_merge.trajectory.backtests.backtest import stacked
from relex_merge.trajectory.gram import Array, in_window
from relex_merge.trajectory.spectra import spectra
from relex_merge.trajectory.statistics import SeriesStatistics, at_rest_where_broken

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOWEST_SKILL = -2.0  # below, how bad it is no longer matters; points are drawn on the edge
DRAWN = ("linear", "rank_r", "quadratic", "least_squares", "two_point")
RATIO_TICKS = (1, 2, 5, 10, 20, 50, 100)
ZOOM_FROM = 3.0  # ratio above which the observed steps get an inset of their own
CORNERS = ((0.58, 0.1), (0.12, 0.53), (0.58, 0.53), (0.12, 0.1))  # of an inset, in axes
INSET = 0.38  # its width and height


def save_plot(report: Report, statistics: SeriesStatistics, path: Path) -> None:
    """Write the figure to a file.

    Args:
        report: what it shows.
        statistics: of the observed checkpoints, as given to ``build_report``.
        path: the file, .png, .svg or .pdf.

    Raises:
        RelexError: matplotlib is missing or cannot write that format.
    """
    save(draw(report, statistics), path)


def draw(report: Report, statistics: SeriesStatistics) -> Figure:
    """Draw the figure; arguments as for :func:`save_plot`."""
    figure = new_figure(12.5, 8.6)
    grid = figure.add_gridspec(2, 1, height_ratios=[1.2, 1])
    top, bottom = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    spectrum, coefficient, tests = top.subplots(1, 3)
    draw_spectrum(spectrum, report)
    draw_coefficient(coefficient, report, coefficients(statistics))
    draw_backtests(tests, report)
    left, right = bottom.subplots(1, 2)
    draw_map(left, variance_map(report))
    draw_map(right, skill_map(report))
    right.set_yticklabels([])
    figure.suptitle(_title(report), fontsize=12)
    return figure


def coefficients(statistics: SeriesStatistics) -> Array:
    """Return (N, T) the coefficients of every tensor along its own first direction."""
    known, _ = at_rest_where_broken(statistics)
    return spectra(stacked(known)).coefficients()


def _title(report: Report) -> str:
    steps, ratio = report["steps"], report["ratio"]
    further = f" ({ratio:.3g}×)" if ratio else ""
    sampled = (
        f" (from {report['sample']['share']:.2g} of the numbers)" if "sample" in report else ""
    )
    return (
        f"{len(steps)} checkpoints, steps {steps[0]:g}–{steps[-1]:g} → "
        f"{report['target_step']:g}{further}.  Verdict: {report['verdict']['verdict']}{sampled}"
    )


def _floats(values: list[float | None]) -> Array:
    """Return float64 (n,), NaN where a figure is undefined."""
    return np.asarray([np.nan if value is None else value for value in values])


def _shares(cumulative: list[float | None]) -> Array:
    """Return each direction's share from cumulative explained variance; NaN where undefined."""
    return np.diff(_floats(cumulative), prepend=0.0)


def draw_spectrum(axes: Axes, report: Report) -> None:
    """Draw the share of the variance on each direction, against a random walk's."""
    model = _shares(report["model"]["spectrum"])
    ranks = np.arange(1, len(model) + 1)
    tensors = np.stack([_shares(entry["spectrum"]) for entry in report["tensors"].values()])
    low, high = _band(tensors)
    axes.fill_between(ranks, low, high, color=COLOURS[0], alpha=0.2, lw=0, label="80 % of tensors")
    axes.plot(ranks, model, "o-", color=COLOURS[0], label="whole model")
    axes.plot(
        ranks, _shares(report["random_walk"]["spectrum"]), "x--", color=GREY, label="random walk"
    )
    axes.set_yscale("log")
    axes.set_ylim(1e-4, 1.5)
    axes.set_xticks(ranks)
    axes.set_xlabel("direction")
    axes.set_ylabel("share of the variance")
    axes.set_title("Spectrum")
    legend_below(axes)


def legend_below(axes: Axes) -> None:
    """Put the legend below an axes, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            handles,
            labels,
            frameon=False,
            fontsize=8,
            ncols=2,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.17),
            handlelength=1.6,
            columnspacing=1.2,
        )


def _band(rows: Array) -> tuple[Array, Array]:
    """Return the 10 % and 90 % quantiles of each column over the rows that are defined."""
    defined = rows[np.isfinite(rows).all(axis=1)]
    if not len(defined):
        return np.full(rows.shape[1], np.nan), np.full(rows.shape[1], np.nan)
    low, high = np.quantile(defined, [0.1, 0.9], axis=0)
    return low, high


def draw_coefficient(axes: Axes, report: Report, tensors: Array) -> None:
    """Draw the whole model's coefficient, in units of its last observed value, and where it goes.

    Args:
        axes: where to draw.
        report: what it shows.
        tensors: (N, T) coefficients of the tensors; 80 % of them lie in the band.
    """
    steps = np.asarray(report["steps"])
    c = _floats(report["model"]["coefficients"])
    scale = c[-1] if c[-1] > 0 else 1.0
    last = tensors[:, -1:]
    band = _band(tensors / np.where(last > 0, last, np.nan))
    _draw_observed(axes, report, steps, c / scale, band)
    predicted = report["model"]["predicted"]
    if predicted is not None:
        target = float(report["target_step"])  # matplotlib takes no integer of more than 64 bits
        label = f"step {target:g}, as written"
        axes.plot(target, predicted / scale, "*", ms=13, color=COLOURS[1], label=label, zorder=4)
    axes.set_xlabel("step")
    axes.set_ylabel("coefficient / last observed")
    axes.set_title(f"First direction, R² {cell(report['model']['r2'], '.3f')}")
    legend_below(axes)
    if report["ratio"] and report["ratio"] > ZOOM_FROM and np.isfinite(c).any():
        inset = axes.inset_axes((*_free_corner(axes), INSET, INSET))
        _draw_observed(inset, report, steps, c / scale, band)
        inset.set_xlim(0, steps[-1] * 1.05)
        inset.set_ylim(min(0.0, float(np.nanmin(c / scale))) - 0.05, 1.25)
        inset.tick_params(labelsize=7)


def _free_corner(axes: Axes) -> tuple[float, float]:
    """Return the corner, in the axes' own units, in which an inset covers least of the lines."""
    drawn = [np.asarray(line.get_xydata(), np.float64) for line in axes.lines]
    points = axes.transAxes.inverted().transform(axes.transData.transform(np.vstack(drawn)))

    def covered(corner: tuple[float, float]) -> int:
        low = np.asarray(corner) - 0.1  # with its tick labels
        inside = (points > low) & (points < np.asarray(corner) + INSET + 0.02)
        return int(inside.all(axis=1).sum())

    return min(CORNERS, key=covered)


def _draw_observed(
    axes: Axes, report: Report, steps: Array, c: Array, band: tuple[Array, Array]
) -> None:
    """Draw the checkpoints and the curve; c (T,) and the curve in units of the last observed."""
    method, observed = report["method"], report["model"]["coefficients"][-1]
    axes.fill_between(steps, *band, color=COLOURS[0], alpha=0.2, lw=0, label="80 % of tensors")
    curve = np.asarray([_floats(point) for point in report["model"].get("curve", [])])
    if len(curve):
        ends, line = curve.T
        unit = observed if observed is not None and observed > 0 else 1.0
        name = method.get("predictor", "linear")
        scaled = method.get("scale", 1) != 1
        label = f"{name}, λ = {method['scale']:g}" if scaled else name
        axes.plot(ends, line / unit, "-", color=COLOURS[1], lw=1.2, label=label)
    inside = in_window(steps, method["window"])
    axes.plot(steps[inside], c[inside], "o", ms=3, color=COLOURS[0], label="observed")
    axes.plot(steps[~inside], c[~inside], "o", ms=3, mfc="none", color=COLOURS[0])


def draw_backtests(axes: Axes, report: Report) -> None:
    """Draw the skill of every predictor against the extrapolation ratio.

    Beside it what the backtests lead one to expect, and the truth at held-out checkpoints.
    """
    tests = report["backtests"]
    axes.axhline(0, color="0.3", lw=0.8)
    if tests["forecast"]:
        _draw_forecast(axes, tests["forecast"], len(report["steps"]))
    for i, (key, label) in enumerate(_drawn(tests).items()):
        points = [(t["ratio"], t["skill"][key]) for t in tests["grid"]]
        known = [(ratio, skill) for ratio, skill in points if skill is not None]
        if known:
            ratios, skills = np.asarray(known).T
            axes.plot(ratios, _clip(skills), f"{MARKERS[i]}-", color=COLOURS[i], ms=4, label=label)
    truth = [(t["ratio"], t["skill"]["method"]) for t in report["holdout"] or []]
    known = [(ratio, skill) for ratio, skill in truth if skill is not None]
    if known:
        ratios, skills = np.asarray(known).T
        axes.plot(ratios, _clip(skills), "*", ms=11, color="black", label="true skill")
    if report["ratio"]:
        label = f"your ratio, {report['ratio']:.3g}×"
        axes.axvline(report["ratio"], color=RED, lw=1, ls="--", label=label)
    axes.set_xscale("log")
    ticks = [r for r in RATIO_TICKS if r <= 1.2 * axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{r}×" for r in ticks])
    axes.minorticks_off()
    axes.set_ylim(LOWEST_SKILL - 0.1, 1.05)
    axes.set_yticks([1, 0, -1, LOWEST_SKILL], ["1", "0", "−1", f"<−{-LOWEST_SKILL:g}"])
    axes.set_xlabel("extrapolation ratio")
    axes.set_ylabel("skill (0 = standing still)")
    axes.set_title("Backtests")
    legend_below(axes)


def _draw_forecast(axes: Axes, forecast: ForecastEntry, T: int) -> None:
    """Draw what all backtests together lead one to expect of a fit on all T checkpoints."""
    ratio, low, middle, high = np.asarray([_floats(point) for point in forecast["curve"]]).T
    axes.fill_between(
        ratio, _clip(low), _clip(high), color="0.8", lw=0, label="likely (± 1 deviation)"
    )
    label = f"recipe on all {T}, expected"
    axes.plot(ratio, _clip(middle), "-", color="0.4", lw=2, label=label)


def _clip(skill: Array) -> Array:
    return np.asarray(np.maximum(skill, LOWEST_SKILL))


def _drawn(tests: BacktestsEntry) -> dict[str, str]:
    """Name the five baselines and the recipe's own method, which may be one of them."""
    labels = tests["labels"]
    named = distinct(tests["grid"], labels)
    own = [key for key in DRAWN if key not in named][:1] or ["method"]  # last: five keep colours
    return {key: labels[key] for key in DRAWN} | dict.fromkeys(own, named["method"])
