"""Accuracy against step: observed, extrapolated, and real where it was trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from relex_merge.demo.table import Curve
from relex_merge.report.style import COLOURS, GREY, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES: dict[str, dict[str, Any]] = {
    "observed": {"color": COLOURS[0], "marker": "o", "label": "observed"},
    "extrapolated": {"color": COLOURS[1], "marker": "s", "linestyle": "--", "label": "RELEX"},
    "real": {"color": GREY, "marker": ".", "label": "real RLVR run"},
}


def save_accuracy_plot(curves: dict[str, Curve], observe: int, title: str, path: Path) -> None:
    """Draw greedy accuracy on the left, sampled on the right.

    Args:
        curves: by name.
        observe: step up to which the run was observed.
        title: of the figure.
        path: the file.

    Raises:
        RelexError: matplotlib is missing.
    """
    figure = new_figure(10, 4.2)
    greedy, sampled = figure.subplots(1, 2, sharey=True)
    _draw(greedy, curves, observe, "greedy")
    _draw(sampled, curves, observe, "sampled")
    greedy.legend(loc="upper left")
    figure.suptitle(title, fontsize=12)
    save(figure, path)


def _draw(axes: Axes, curves: dict[str, Curve], observe: int, kind: str) -> None:
    axes.axvspan(0, observe, color=GREY, alpha=0.15, lw=0)
    for name, curve in sorted(curves.items(), reverse=True):
        steps = [step for step, _ in curve]
        shares = [getattr(accuracy, kind) for _, accuracy in curve]
        errors = [getattr(accuracy, f"{kind}_error") for _, accuracy in curve]
        axes.errorbar(steps, shares, errors, capsize=2, **STYLES[name])
    axes.set(xlabel="step", ylabel=f"{kind} accuracy, held-out problems", ylim=(0, 1))
    axes.set_xlim(left=0)
