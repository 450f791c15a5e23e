"""The curves of an evaluation: KL and scores against the target step, a line for each scale.

Bars are 95 % intervals. Full markers are scores on the questions that are reported; hollow ones are
scores on those that candidates were chosen by, and flatter the winner.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeAlias

from relex_merge.report.candidates import BASE, LAST
from relex_merge.report.evaluation import DivergenceEntry, Evaluation, ModelEntry, TaskEntry
from relex_merge.report.functional import TRUST_REGION
from relex_merge.report.style import COLOURS, GREY, MARKERS, RED, new_figure, save

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3  # panels side by side
LETTERS = 10  # of the title in an inch
HOLLOW = "questions that choose"
_Z = NormalDist().inv_cdf(0.975)


def save_evaluation_plot(evaluation: Evaluation, path: Path) -> None:
    """Write the curves of an evaluation to a file.

    Args:
        evaluation: what ``relex_merge.evaluate`` returns.
        path: the file, .png, .svg or .pdf.

    Raises:
        RelexError: matplotlib is missing or cannot write that format.
    """
    save(draw_evaluation(evaluation), path)


def draw_evaluation(evaluation: Evaluation) -> Figure:
    """Draw KL against target step, and a panel for each task."""
    tasks = evaluation["tasks"]
    columns = min(1 + len(tasks), COLUMNS)
    rows = -(-(1 + len(tasks)) // columns)
    figure = new_figure(4.6 * columns + 2.2, 3.8 * rows)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    styles = _styles(evaluation)
    _draw_divergences(panels[0], evaluation, styles)
    for axes, (task, entries) in zip(panels[1:], tasks.items(), strict=False):
        _draw_task(axes, task, entries, styles, evaluation["last_step"])
    for axes in panels[1 + len(tasks) :]:
        axes.set_axis_off()
    _draw_legend(figure, panels, styles)
    verdict = evaluation["verdict"]
    said = f"Verdict: {verdict['verdict']} ({verdict['evidence']})."
    chosen = f"Chosen: {evaluation['chosen']['model']}"
    room = int(figure.get_figwidth() * LETTERS)
    if len(said) + len(chosen) + 2 <= room:
        title = f"{said}  {chosen}"
    else:
        title = "\n".join(textwrap.fill(line, room) for line in (said, chosen))
    figure.suptitle(title, fontsize=12, parse_math=False)
    return figure


def _draw_legend(figure: Figure, panels: Sequence[Axes], styles: Mapping[_Line, _Style]) -> None:
    """Name every line once, the candidates first."""
    from matplotlib.lines import Line2D

    handles: dict[str, Artist] = {}
    for axes in panels:
        found, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    first = [style.label for style in styles.values()]
    names = [*filter(handles.get, first), *(name for name in handles if name not in first)]
    drawn = [handles[name] for name in names]
    if any(axes.get_gid() == HOLLOW for axes in panels):
        drawn.append(Line2D([], [], marker="o", mfc="none", ls=":", color=GREY))
        names.append(HOLLOW)
    figure.legend(drawn, names, loc="outside right center", frameon=False)


@dataclass(frozen=True)
class _Style:
    """How the candidates of one scale and anchor are drawn."""

    label: str
    colour: str
    marker: str


_Line: TypeAlias = tuple[float, str]  # scale and anchor


def _styles(evaluation: Evaluation) -> dict[_Line, _Style]:
    """Return a colour and marker for each scale and anchor, the same in all panels."""
    entries: list[ModelEntry] = [*evaluation["function"]["candidates"]]
    entries += [entry for found in evaluation["tasks"].values() for entry in found]
    lines = sorted({_line(entry) for entry in entries if "scale" in entry})
    return {
        (scale, anchor): _Style(
            f"λ = {scale:g}" + ("" if anchor == "line" else f", anchor {anchor}"),
            COLOURS[i % len(COLOURS)],
            MARKERS[i % len(MARKERS)],
        )
        for i, (scale, anchor) in enumerate(lines)
    }


def _line(entry: ModelEntry) -> _Line:
    return entry["scale"], entry["anchor"]


@dataclass(frozen=True)
class _Point:
    """A figure at a target step, and its standard error."""

    step: float
    value: float
    stderr: float | None


def _draw_line(axes: Axes, points: Iterable[_Point], style: _Style, *, hollow: bool) -> None:
    """Draw the points of one scale and anchor with 95 % intervals, joined by a line."""
    ordered = sorted(points, key=lambda point: point.step)
    axes.errorbar(
        [point.step for point in ordered],
        [point.value for point in ordered],
        yerr=[_Z * (point.stderr or 0.0) for point in ordered],
        fmt=f"{style.marker}{':' if hollow else '-'}",
        color=style.colour,
        mfc="none" if hollow else style.colour,
        ms=5,
        lw=1.2,
        capsize=2,
        label=None if hollow else style.label,
    )


def _draw_divergences(axes: Axes, evaluation: Evaluation, styles: Mapping[_Line, _Style]) -> None:
    """Draw KL(last ‖ candidate) against target step, and the trust region."""
    found: dict[_Line, list[DivergenceEntry]] = {}
    for entry in evaluation["function"]["candidates"]:
        found.setdefault(_line(entry), []).append(entry)
    for line, entries in found.items():
        points = [_Point(e["target_step"], e["kl"], e["stderr"]) for e in entries]
        _draw_line(axes, points, styles[line], hollow=False)
    axes.axhline(TRUST_REGION, color=RED, lw=1, ls="--", label="trust region")
    for other in evaluation["function"]["others"]:
        if other["model"] == BASE:
            axes.axhline(other["kl"], color=GREY, lw=1, ls=":", label="base")
    if any(entry["kl"] > 0 for entry in evaluation["function"]["candidates"]):
        axes.set_yscale("log", nonpositive="clip")
    axes.set_xlabel("target step")
    axes.set_ylabel("KL from the last observed (nats a token)")
    axes.set_title(_backtest_title(evaluation))


def _backtest_title(evaluation: Evaluation) -> str:
    tests = [t for t in evaluation["function"]["backtests"] if t["skill"] is not None]
    if not tests:
        return "Function"
    furthest = max(tests, key=lambda test: test["ratio"])
    return f"Function (backtest at {furthest['ratio']:.3g}×: skill {furthest['skill']:+.2f})"


def _draw_task(
    axes: Axes,
    task: str,
    entries: Sequence[TaskEntry],
    styles: Mapping[_Line, _Style],
    last_step: float,
) -> None:
    """Draw scores against target step, with base and last observed checkpoint for comparison."""
    for split in ("choosing", "reported"):
        found: dict[_Line, list[TaskEntry]] = {}
        for entry in entries:
            if entry["split"] == split and "scale" in entry:
                found.setdefault(_line(entry), []).append(entry)
        for line, several in found.items():
            points = [_Point(e["target_step"], e["score"], e["stderr"]) for e in several]
            _draw_line(axes, points, styles[line], hollow=split == "choosing")
            if split == "choosing":
                axes.set_gid(HOLLOW)
    for entry in entries:
        if entry["split"] != "reported" or "scale" in entry:
            continue
        if entry["model"] == LAST:
            point = _Point(last_step, entry["score"], entry["stderr"])
            _draw_line(axes, [point], _Style(LAST, "black", "*"), hollow=False)
            axes.axhline(entry["score"], color="black", lw=0.8)
        elif entry["model"] == BASE:
            axes.axhline(entry["score"], color=GREY, lw=1, ls=":", label="base")
    axes.set_xlabel("target step")
    axes.set_ylabel(entries[0]["metric"].partition(",")[0].replace("_", " "))
    axes.set_title(task, parse_math=False)
