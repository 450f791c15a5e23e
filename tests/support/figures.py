"""Where the texts of a figure lie, and which of them touch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.transforms import BboxBase


def clashes(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that touch, panels that a legend covers, and texts that leave the figure."""
    from matplotlib.axes import Axes

    figure.draw_without_rendering()
    axes = [a for a in figure.findobj(Axes) if isinstance(a, Axes) and a.axison]
    own = [figure, *figure.subfigs]
    titles = [t for f in own for t in (getattr(f, "_suptitle", None),) if t is not None]
    texts = [*titles, *(text for a in axes for text in _texts(a))]
    legends = [legend for a in axes if (legend := a.get_legend()) is not None]
    legends += [legend for f in own for legend in f.legends]
    texts += [text for legend in legends for text in legend.get_texts()]
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts if t.get_text().strip()]
    found = [(one, other) for (one, a), (other, b) in combinations(boxes, 2) if a.overlaps(b)]
    for legend in legends:
        box = legend.get_window_extent()
        found += [("a legend", a.get_title()) for a in axes if box.overlaps(a.get_window_extent())]
    return found + [("the edge", name) for name, box in boxes if not _holds(figure.bbox, box)]


def _texts(axes: Axes) -> Iterator[Text]:
    yield from (axes.title, axes.xaxis.label, axes.yaxis.label)
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():
            if low <= tick.get_loc() <= high:
                yield from (t for t in (tick.label1, tick.label2) if t.get_visible())


def _holds(outer: BboxBase, inner: BboxBase) -> bool:
    return all(outer.contains(float(x), float(y)) for x, y in (inner.min, inner.max))
