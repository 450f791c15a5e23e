"""Accuracy against step: observed, extrapolated, and real where it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relex_merge.demo.table import Curve
from relex_merge.report.style import COLOURS, GREY, RED, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES: dict[str, dict[str, Any]] = {
    "real": {"color": GREY, "marker": ".", "label": "real RLVR run", "zorder": 1},
    "observed": {"color": COLOURS[0], "marker": "o", "label": "observed", "zorder": 3},
    "extrapolated": {
        "color": COLOURS[1],
        "marker": "s",
        "linestyle": "--",
        "label": "RELEX",
        "zorder": 4,
    },
    "auto": {"color": COLOURS[2], "marker": "^", "linestyle": "", "label": "auto", "zorder": 5},
    "two-point": {
        "color": COLOURS[3],
        "marker": "D",
        "linestyle": "",
        "label": "two-point line",
        "zorder": 2,
    },
}
_MARGIN = 0.06  # of the range of accuracies, above and below


def save_accuracy_plot(curves: Mapping[str, Curve], observe: int, title: str, path: Path) -> None:
    """Draw greedy accuracy on the left, sampled on the right.

    Args:
        curves: by name; "observed" ends at ``observe``.
        observe: step up to which the run was observed.
        title: of the figure.
        path: the file.

    Raises:
        RelexError: matplotlib is missing.
    """
    last = curves["observed"][-1]
    joined = {**curves, "extrapolated": [last, *curves["extrapolated"]]}
    figure = new_figure(10, 4.2)
    for axes, kind in zip(figure.subplots(1, 2), ("greedy", "sampled"), strict=True):
        _draw(axes, joined, observe, kind)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(title, fontsize=12)
    save(figure, path)


def _draw(axes: Axes, curves: Mapping[str, Curve], observe: int, kind: str) -> None:
    axes.axvspan(0, observe, color=GREY, alpha=0.12, lw=0)
    last = getattr(curves["observed"][-1][1], kind)
    axes.axhline(last, color=RED, lw=1, ls=":", label="last observed", zorder=0)
    ends: list[float] = []
    for name, style in STYLES.items():
        if name not in curves:
            continue
        steps = [step for step, _ in curves[name]]
        shares = [getattr(accuracy, kind) for _, accuracy in curves[name]]
        errors = [getattr(accuracy, f"{kind}_error") for _, accuracy in curves[name]]
        axes.errorbar(steps, shares, errors, capsize=2, markersize=5, **style)
        ends += [s + e for s, e in zip(shares, errors, strict=True)]
        ends += [s - e for s, e in zip(shares, errors, strict=True)]
    margin = _MARGIN * (max(ends) - min(ends)) or _MARGIN
    axes.set_ylim(max(min(ends) - margin, 0), min(max(ends) + margin, 1))
    axes.set_xlim(left=0)
    axes.set(xlabel="step", ylabel=f"{kind} accuracy, held-out problems")
