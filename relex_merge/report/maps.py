"""Explained variance and skill of every tensor, as maps of layers × kinds of module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from relex_merge.formatting import cell
from relex_merge.report.contents import Report
from relex_merge.trajectory.backtests.groups import places
from relex_merge.trajectory.gram import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OUTSIDE = "–"  # the column of tensors that belong to no layer
MOST_LABELS = 18  # along an axis
NOTHING = "cannot be tested"


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


@dataclass(frozen=True)
class Map:
    """A figure of every tensor, layers × kinds.

    Attributes:
        title: what it shows.
        layers: names of the columns.
        kinds: names of the rows.
        values: (kinds, layers), NaN where a cell has no tensor or the figure is undefined.
        limits: values of the first and the last colour.
        colours: name of matplotlib's colour map.
        form: format of a value.
    """

    title: str
    layers: list[str]
    kinds: list[str]
    values: Array
    limits: tuple[float, float]
    colours: str
    form: str


def variance_map(report: Report) -> Map:
    """Return explained variance, from the random walk's to 1."""
    walk = report["random_walk"]["explained_variance"]
    title = f"Explained variance (random walk {cell(walk, '.2f')})"
    limits = (min(walk or 0.0, 0.999), 1.0)
    return Map(title, *table_of(report, "explained_variance"), limits, "viridis", ".3f")


def skill_map(report: Report) -> Map:
    """Return the skill of the backtest at the ratio that was asked for, −1 to 1."""
    ratio = report["ratio"]
    title = f"Backtest skill at {ratio:.3g}×" if ratio else "Backtest skill"
    return Map(title, *table_of(report, "backtest_skill"), (-1.0, 1.0), "RdBu", "+.2f")


def draw_map(axes: Axes, shown: Map) -> None:
    """Draw a map with its scale."""
    low, high = shown.limits
    image = axes.imshow(
        shown.values,
        cmap=shown.colours,
        vmin=low,
        vmax=high,
        aspect="auto",
        interpolation="none",
    )
    # a dollar in a name is a dollar
    across, down = _labelled(shown.layers), _labelled(shown.kinds)
    axes.set_xticks(across, [shown.layers[i] for i in across], fontsize=8, parse_math=False)
    axes.set_yticks(down, [shown.kinds[i] for i in down], fontsize=8, parse_math=False)
    axes.set_xlabel("layer")
    axes.set_facecolor("0.93")
    axes.set_title(shown.title)
    if np.isnan(shown.values).all():
        axes.text(0.5, 0.5, NOTHING, ha="center", transform=axes.transAxes)
    bar = axes.figure.colorbar(image, ax=axes, pad=0.01, extend="min")
    bar.ax.tick_params(labelsize=8)


def _labelled(names: list[str]) -> range:
    """Return which of the names along an axis are written, so that none touches the next."""
    return range(0, len(names), -(-len(names) // MOST_LABELS))
