"""The report as one figure, for a model card or for print.

Top: spectrum against a random walk's, coefficient against step with fit and target, backtest skill
against ratio. Bottom: explained variance and skill of every tensor, layers × kinds of module.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from relex_merge.formatting import cell
from relex_merge.report.contents import BacktestsEntry, Report
from relex_merge.report.style import COLOURS, GREY, MARKERS, RED, new_figure, save
from relex_merge.trajectory.backtests.backtest import stacked
from relex_merge.trajectory.backtests.groups import places
from relex_merge.trajectory.gram import Array, in_window, least_squares_rows
from relex_merge.trajectory.spectra import spectra
from relex_merge.trajectory.statistics import SeriesStatistics, at_rest_where_broken

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOWEST_SKILL = -2.0  # below, how bad it is no longer matters; points are drawn on the edge
DRAWN = ("linear", "rank_r", "quadratic", "least_squares", "two_point")
RATIO_TICKS = (1, 2, 5, 10, 20, 50, 100)
ZOOM_FROM = 3.0  # ratio above which the observed steps get an inset of their own
OUTSIDE = "–"  # the column of tensors that belong to no layer


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
    figure = new_figure(12, 7.6)
    grid = figure.add_gridspec(2, 1, height_ratios=[1, 1.1])
    top, bottom = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    spectrum, coefficient, tests = top.subplots(1, 3, width_ratios=[1, 1, 1.25])
    draw_spectrum(spectrum, report)
    known, _ = at_rest_where_broken(statistics)
    draw_coefficient(coefficient, report, spectra(stacked(known)).coefficients())
    draw_backtests(tests, report)
    left, right = bottom.subplots(1, 2)
    draw_maps(left, right, report)
    figure.suptitle(_title(report), fontsize=12)
    return figure


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
    axes.legend(frameon=False)


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
        axes.plot(target, predicted / scale, "*", ms=13, color=COLOURS[1], label="target")
    axes.set_xlabel("step")
    axes.set_ylabel("coefficient / last observed")
    axes.set_title(f"First direction, R² {cell(report['model']['r2'], '.3f')}")
    axes.legend(frameon=False, loc="upper left")
    if report["ratio"] and report["ratio"] > ZOOM_FROM and np.isfinite(c).any():
        inset = axes.inset_axes((0.58, 0.12, 0.4, 0.4))
        _draw_observed(inset, report, steps, c / scale, band)
        inset.set_xlim(0, steps[-1] * 1.05)
        inset.set_ylim(min(0.0, float(np.nanmin(c / scale))) - 0.05, 1.25)
        inset.tick_params(labelsize=7)


def _draw_observed(
    axes: Axes, report: Report, steps: Array, c: Array, band: tuple[Array, Array]
) -> None:
    degree, window = report["method"]["degree"], report["method"]["window"]
    axes.fill_between(steps, *band, color=COLOURS[0], alpha=0.2, lw=0, label="80 % of tensors")
    if None not in report["model"]["fitted"]:
        ends = np.linspace(0, max(float(report["target_step"]), steps[-1]), 100)
        line = least_squares_rows(steps, ends, degree=degree, window=window) @ c
        axes.plot(ends, line, "-", color=COLOURS[1], lw=1.2, label="fit")
    inside = in_window(steps, window)
    axes.plot(steps[inside], c[inside], "o", ms=3, color=COLOURS[0], label="observed")
    axes.plot(steps[~inside], c[~inside], "o", ms=3, mfc="none", color=COLOURS[0])


def draw_backtests(axes: Axes, report: Report) -> None:
    """Draw the skill of every predictor against the extrapolation ratio.

    Beside it what the backtests lead one to expect, and the truth at held-out checkpoints.
    """
    tests = report["backtests"]
    axes.axhline(0, color="0.3", lw=0.8)
    forecast = tests["forecast"]
    if forecast:
        ratio, low, middle, high = np.asarray([_floats(point) for point in forecast["curve"]]).T
        axes.fill_between(ratio, _clip(low), _clip(high), color="0.8", lw=0)
        axes.plot(ratio, _clip(middle), "-", color="0.4", lw=2, label="expected with all T")
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
        axes.axvline(report["ratio"], color=RED, lw=1, ls="--", label="target")
    axes.set_xscale("log")
    ticks = [r for r in RATIO_TICKS if r <= 1.2 * axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{r}×" for r in ticks])
    axes.minorticks_off()
    axes.set_ylim(LOWEST_SKILL - 0.1, 1.05)
    axes.set_xlabel("extrapolation ratio")
    axes.set_ylabel("skill (0 = standing still)")
    axes.set_title("Backtests")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _clip(skill: Array) -> Array:
    return np.asarray(np.maximum(skill, LOWEST_SKILL))


def _drawn(tests: BacktestsEntry) -> dict[str, str]:
    """Name the five baselines, and the recipe's own method where it is none of them."""
    grid, labels = tests["grid"], tests["labels"]
    drawn = {key: labels[key] for key in DRAWN}
    own = [trial["skill"]["method"] for trial in grid]
    if all(own != [trial["skill"][key] for trial in grid] for key in drawn):
        drawn["method"] = labels["method"]  # last, so that the five keep their colours
    return drawn


def table_of(
    report: Report, key: Literal["explained_variance", "backtest_skill"]
) -> tuple[list[str], list[str], Array]:
    """Average a figure over the tensors of each layer and kind.

    Args:
        report: where the figures are.
        key: name of the figure.

    Returns:
        Layers, those tensors first that belong to none; kinds; values (kinds, layers), NaN where a
        cell has no tensor or the figure is undefined.
    """
    where = places(report["tensors"])
    layers = list(report["layers"])
    if any(place.layer is None for place in where.values()):
        layers = [OUTSIDE, *layers]
    kinds = list(report["kinds"])
    total = np.zeros((len(kinds), len(layers)))
    count = np.zeros_like(total)
    for name, place in where.items():
        value = report["tensors"][name][key]
        if value is not None:
            where_to = kinds.index(place.kind), layers.index(place.layer or OUTSIDE)
            total[where_to] += value
            count[where_to] += 1
    return layers, kinds, np.where(count > 0, total / np.maximum(count, 1), np.nan)


def draw_maps(left: Axes, right: Axes, report: Report) -> None:
    """Draw explained variance, from the random walk's to 1, and skill at the ratio, −1 to 1."""
    walk = report["random_walk"]["explained_variance"]
    layers, kinds, values = table_of(report, "explained_variance")
    _draw_map(left, layers, kinds, values, (min(walk or 0.0, 0.999), 1.0), "viridis")
    left.set_title(f"Explained variance (random walk {cell(walk, '.2f')})")
    layers, kinds, values = table_of(report, "backtest_skill")
    _draw_map(right, layers, kinds, values, (-1.0, 1.0), "RdBu")
    right.set_yticklabels([])
    ratio = report["ratio"]
    right.set_title(f"Backtest skill at {ratio:.3g}×" if ratio else "Backtest skill")
    if np.isnan(values).all():
        right.text(0.5, 0.5, "cannot be tested", ha="center", transform=right.transAxes)


def _draw_map(
    axes: Axes,
    layers: list[str],
    kinds: list[str],
    values: Array,
    limits: tuple[float, float],
    colours: str,
) -> None:
    image = axes.imshow(
        values, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto", interpolation="none"
    )
    every = -(-len(layers) // 18)
    ticks = list(range(len(layers)))[::every]
    # a dollar in a name is a dollar
    axes.set_xticks(ticks, [layers[i] for i in ticks], fontsize=8, parse_math=False)
    axes.set_yticks(range(len(kinds)), kinds, fontsize=8, parse_math=False)
    axes.set_xlabel("layer")
    axes.set_facecolor("0.93")
    bar = axes.figure.colorbar(image, ax=axes, pad=0.01, extend="min")
    bar.ax.tick_params(labelsize=8)
