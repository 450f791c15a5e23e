"""The demo's figure: RELEX goes on from the last observed point, and the axis fits the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from relex_merge.demo.evaluate import Accuracy
from relex_merge.demo.plot import save_accuracy_plot
from relex_merge.report.style import save


def curve(*points: tuple[int, float]) -> list[tuple[int, Accuracy]]:
    return [(step, Accuracy(share, share / 2, 1000)) for step, share in points]


CURVES = {
    "observed": curve((0, 0.10), (30, 0.15)),
    "extrapolated": curve((100, 0.3), (200, 0.47)),
    "real": curve((30, 0.15), (200, 0.5)),
    "two-point": curve((200, 0.46)),
    "auto": curve((200, 0.47)),
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Figure:
    figures: list[Figure] = []

    def keep(figure: Figure, path: Path) -> None:
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr("relex_merge.demo.plot.save", keep)
    save_accuracy_plot(CURVES, 30, "a title", tmp_path / "accuracy.png")
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    return figures[0]


def test_relex_is_joined_to_the_last_observed_point(drawn: Figure) -> None:
    containers = {c.get_label(): c for c in drawn.axes[0].containers}
    line = containers["RELEX"][0]
    assert list(line.get_xdata()) == [30, 100, 200]
    assert list(line.get_ydata()) == [0.15, 0.3, 0.47]
    assert {"observed", "real RLVR run", "auto", "two-point line"} <= set(containers)


def test_the_last_observed_accuracy_is_a_line_across_and_the_axis_fits(drawn: Figure) -> None:
    across = next(x for x in drawn.axes[0].get_lines() if x.get_label() == "last observed")
    assert np.unique(np.asarray(across.get_ydata())).tolist() == [0.15]
    for axes, top, bottom in ((drawn.axes[0], 0.5, 0.1), (drawn.axes[1], 0.25, 0.05)):
        low, high = axes.get_ylim()
        assert 0 <= low < bottom
        assert top < high < top + 0.1
