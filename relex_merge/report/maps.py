"""Explained variance and skill of every tensor, as maps of layers × kinds of module."""

from __future__ import annotations

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


def draw_variance_map(axes: Axes, report: Report) -> None:
    """Draw explained variance, from the random walk's to 1."""
    walk = report["random_walk"]["explained_variance"]
    layers, kinds, values = table_of(report, "explained_variance")
    _draw_map(axes, layers, kinds, values, (min(walk or 0.0, 0.999), 1.0), "viridis")
    axes.set_title(f"Explained variance (random walk {cell(walk, '.2f')})")


def draw_skill_map(axes: Axes, report: Report) -> None:
    """Draw the skill of the backtest at the ratio that was asked for, −1 to 1."""
    layers, kinds, values = table_of(report, "backtest_skill")
    _draw_map(axes, layers, kinds, values, (-1.0, 1.0), "RdBu")
    ratio = report["ratio"]
    axes.set_title(f"Backtest skill at {ratio:.3g}×" if ratio else "Backtest skill")
    if np.isnan(values).all():
        axes.text(0.5, 0.5, "cannot be tested", ha="center", transform=axes.transAxes)


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
    # a dollar in a name is a dollar
    across, down = _labelled(layers), _labelled(kinds)
    axes.set_xticks(across, [layers[i] for i in across], fontsize=8, parse_math=False)
    axes.set_yticks(down, [kinds[i] for i in down], fontsize=8, parse_math=False)
    axes.set_xlabel("layer")
    axes.set_facecolor("0.93")
    bar = axes.figure.colorbar(image, ax=axes, pad=0.01, extend="min")
    bar.ax.tick_params(labelsize=8)


def _labelled(names: list[str]) -> range:
    """Return which of the names along an axis are written, so that none touches the next."""
    return range(0, len(names), -(-len(names) // MOST_LABELS))
