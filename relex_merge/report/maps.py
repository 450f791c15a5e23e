"""Layers × kinds of module: where in the model the trajectory is straight and predictable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from relex_merge.trajectory.backtests.groups import places
from relex_merge.trajectory.gram import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OUTSIDE = "–"  # the column of tensors that belong to no layer


def table_of(report: Mapping[str, Any], key: str) -> tuple[list[str], list[str], Array]:
    """(layers, kinds, values (kinds, layers)): mean of ``key`` over the tensors of each cell.

    NaN where a cell has no tensor or the figure is undefined; tensors outside any layer come first.
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
            cell = kinds.index(place.kind), layers.index(place.layer or OUTSIDE)
            total[cell] += value
            count[cell] += 1
    return layers, kinds, np.where(count > 0, total / np.maximum(count, 1), np.nan)


def draw_maps(left: Axes, right: Axes, report: Mapping[str, Any]) -> None:
    """Explained variance (from the random walk's to 1) and skill at the user's ratio (−1 to 1)."""
    walk = report["random_walk"]["explained_variance"]
    layers, kinds, values = table_of(report, "explained_variance")
    _draw(left, layers, kinds, values, (min(walk, 0.999), 1.0), "viridis")
    left.set_title(f"Explained variance (random walk {walk:.2f})")
    layers, kinds, values = table_of(report, "backtest_skill")
    _draw(right, layers, kinds, values, (-1.0, 1.0), "RdBu")
    right.set_yticklabels([])
    ratio = report["ratio"]
    right.set_title(f"Backtest skill at {ratio:.3g}×" if ratio else "Backtest skill")
    if np.isnan(values).all():
        right.text(0.5, 0.5, "cannot be tested", ha="center", transform=right.transAxes)


def _draw(
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
    axes.set_xticks(ticks, [layers[i] for i in ticks], fontsize=8)
    axes.set_yticks(range(len(kinds)), kinds, fontsize=8)
    axes.set_xlabel("layer")
    axes.set_facecolor("0.93")
    bar = axes.figure.colorbar(image, ax=axes, pad=0.01, extend="min")
    bar.ax.tick_params(labelsize=8)
