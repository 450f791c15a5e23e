"""The report as a compact table for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Literal, TypeAlias

from relex_merge.formatting import cell
from relex_merge.report.contents import Report, TensorEntry, TrialEntry, WalkEntry, missing
from relex_merge.report.sampled import error_cell, sample_lines
from relex_merge.trajectory.backtests.entries import ChoiceEntry, horizons

WIDTH = 96
SHOWN_GROUPS = 3  # best and worst of layers and of kinds
Column: TypeAlias = Literal[
    "explained_variance",
    "r2",
    "straightness",
    "angle",
    "end_speed",
    "backtest_skill",
    "relative_update",
    "moved",
]
COLUMNS: tuple[tuple[str, Column, str], ...] = (
    ("expl. var", "explained_variance", ".3f"),
    ("R²", "r2", ".3f"),
    ("straight", "straightness", ".2f"),
    ("angle", "angle", ".0f°"),
    ("speed", "end_speed", ".2f"),
    ("skill", "backtest_skill", "+.2f"),
    ("update", "relative_update", ".1e"),
    ("moved", "moved", ".1%"),
)


def render_table(report: Report) -> str:
    """Show the whole model, its best and worst groups, the backtests and the verdict as text."""
    parts = [
        [_heading(report), *sample_lines(report)],
        _figures(report),
        _backtests(report),
        _choice(report),
        _gaps(report),
        _verdict(report),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _heading(report: Report) -> str:
    steps, ratio = report["steps"], report["ratio"]
    further = f", {ratio:.3g}× the last" if ratio else ""
    return (
        f"{len(steps)} checkpoints, steps {steps[0]:g} to {steps[-1]:g}; target step "
        f"{report['target_step']:g}{further}; {len(report['tensors'])} tensors"
    )


def _line(label: str, cells: Sequence[str]) -> str:
    return f"{label:<28}" + "".join(f"{c:>9}" for c in cells)


def _row(label: str, entry: TensorEntry) -> str:
    return _line(label, [cell(entry[key], form) for _, key, form in COLUMNS])


def _error_row(entry: TensorEntry) -> list[str]:
    """Show the standard errors of a sampled series; nothing where every number was read."""
    if "standard_errors" not in entry:
        return []
    return [_line("  standard error", [error_cell(entry, key, form) for _, key, form in COLUMNS])]


def _walk_row(walk: WalkEntry) -> str:
    known = {
        "explained_variance": walk["explained_variance"],
        "r2": walk["r2"],
        "straightness": walk["straightness"],
        "angle": walk["angle"],
        "backtest_skill": walk["backtest_skill"],
    }
    return _line("a random walk", [cell(known.get(key), form) for _, key, form in COLUMNS])


def _figures(report: Report) -> list[str]:
    lines = [
        _line("", [title for title, _, _ in COLUMNS]),
        _row("whole model", report["model"]),
        *_error_row(report["model"]),
        _walk_row(report["random_walk"]),
    ]
    for title, prefix, groups in (
        ("kinds", "", report["kinds"]),
        ("layers", "layer ", report["layers"]),
    ):
        if len(groups) > 1:
            lines.append(f"{title}, best to worst")
            lines += [
                "  …" if label is None else _row(f"  {prefix}{label}"[:28], groups[label])
                for label in _best_and_worst(groups)
            ]
    return lines


def _best_and_worst(groups: Mapping[str, TensorEntry]) -> list[str | None]:
    """Rank labels by skill, or explained variance where that is undefined; None: some left out."""

    def merit(label: str) -> tuple[float, float]:
        entry = groups[label]
        values = (entry["backtest_skill"], entry["explained_variance"])
        first, second = (float("-inf") if value is None else value for value in values)
        return first, second

    ranked = sorted(groups, key=merit, reverse=True)
    if len(ranked) <= 2 * SHOWN_GROUPS:
        return list(ranked)
    return [*ranked[:SHOWN_GROUPS], None, *ranked[-SHOWN_GROUPS:]]


def _trial_lines(trials: Sequence[TrialEntry], labels: Mapping[str, str]) -> list[str]:
    """Show predictors in rows, trials in columns."""
    lines = [_line("  fitted on", [str(t["checkpoints"]) for t in trials])]
    lines.append(_line("  ratio", [f"{t['ratio']:.3g}×" for t in trials]))
    for key, label in labels.items():
        cells = [cell(t["skill"][key], "+.2f") for t in trials]
        lines.append(_line(f"  {label}", cells))
    return lines


def _thinned(trials: Sequence[TrialEntry], cut: int | None) -> list[TrialEntry]:
    """Keep at most eight trials, the one at the user's own ratio always among them."""
    kept = list(trials)
    while len(kept) > len(COLUMNS):
        del kept[next(i for i in (1, 3, 5, 7, 0) if kept[i]["checkpoints"] != cut)]
    return kept


def _backtests(report: Report) -> list[str]:
    tests, labels = report["backtests"], report["backtests"]["labels"]
    lines = []
    if tests["grid"]:
        lines.append("skill of predicting the last checkpoint (1 perfect, 0 standing still)")
        lines += _trial_lines(_thinned(tests["grid"], tests["cut"]), labels)
    if report["holdout"]:
        trials = report["holdout"][-len(COLUMNS) :]
        lines.append("true skill at held-out checkpoints")
        lines.append(_line("  step", [f"{t['step']:g}" for t in trials]))
        lines += _trial_lines(trials, labels)
    return lines


def _choice(report: Report) -> list[str]:
    """Tell which predictor was chosen, why, and what spoke for the others."""
    choice = report.get("choice")
    if choice is None:
        return []
    lines = [f"chosen predictor: {chosen(choice)}", *_bullets(choice["reasons"])]
    group = next(g for g in choice["groups"].values() if g["predictor"] == choice["predictor"])
    if group["candidates"]:
        lines.append(_line("  skill at the target", ["expected", "likely ≥", "backtest"]))
    for name, found in group["candidates"].items():
        figures = (found["expected"], found["low"], found["same_ratio"])
        lines.append(_line(f"  {name}", [cell(figure, "+.2f") for figure in figures]))
    curve = horizons(choice)
    if curve:
        shown = curve[:: -(-len(curve) // len(COLUMNS))]
        lines.append(_line("  step", [f"{step:g}" for step, *_ in shown]))
        lines.append(_line("  best predictor", [name[:8] for _, name, *_ in shown]))
        lines.append(_line("  its skill", [cell(expected, "+.2f") for *_, expected in shown]))
    return lines


def chosen(choice: ChoiceEntry) -> str:
    """Name the predictors of a choice; with how many groups have each, where there are several."""
    counts = Counter(group["predictor"] for group in choice["groups"].values())
    if len(counts) == 1:
        return f"{choice['predictor']} (once per {choice['scope']})"
    named = ", ".join(f"{name} for {count}" for name, count in counts.most_common())
    return f"{named} {choice['scope']}s"


def _gaps(report: Report) -> list[str]:
    """Tell what could not be computed; reports of older versions have no list of it."""
    gaps = [missing(gap) for gap in report.get("gaps", [])]
    return ["gaps in this report", *_bullets(gaps)] if gaps else []


def _verdict(report: Report) -> list[str]:
    verdict = report["verdict"]
    return [f"verdict: {verdict['verdict']}", *_bullets(verdict["reasons"])]


def _bullets(sentences: Sequence[str]) -> list[str]:
    return [
        line
        for sentence in sentences
        for line in wrap(sentence, WIDTH, initial_indent="  - ", subsequent_indent="    ")
    ]
