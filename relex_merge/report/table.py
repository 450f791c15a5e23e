"""The report as a compact table for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from relex_merge.formatting import cell

WIDTH = 96
SHOWN_GROUPS = 3  # best and worst of layers and of kinds
COLUMNS = (
    ("expl. var", "explained_variance", ".3f"),
    ("R²", "r2", ".3f"),
    ("straight", "straightness", ".2f"),
    ("angle", "angle", ".0f°"),
    ("speed", "end_speed", ".2f"),
    ("skill", "backtest_skill", "+.2f"),
    ("update", "relative_update", ".1e"),
    ("moved", "moved", ".1%"),
)


def render_table(report: Mapping[str, Any]) -> str:
    """The whole model, its best and worst groups, the backtests and the verdict; plain text."""
    parts = [[_heading(report)], _figures(report), _backtests(report), _choice(report)]
    return "\n".join(line for part in [*parts, _verdict(report)] if part for line in ["", *part])[
        1:
    ]


def _heading(report: Mapping[str, Any]) -> str:
    steps, ratio = report["steps"], report["ratio"]
    further = f", {ratio:.3g}× the last" if ratio else ""
    return (
        f"{len(steps)} checkpoints, steps {steps[0]:g} to {steps[-1]:g}; target step "
        f"{report['target_step']:g}{further}; {len(report['tensors'])} tensors"
    )


def _line(label: str, cells: Sequence[str]) -> str:
    return f"{label:<28}" + "".join(f"{c:>9}" for c in cells)


def _row(label: str, entry: Mapping[str, Any]) -> str:
    return _line(label, [cell(entry.get(key), form) for _, key, form in COLUMNS])


def _figures(report: Mapping[str, Any]) -> list[str]:
    lines = [
        _line("", [title for title, _, _ in COLUMNS]),
        _row("whole model", report["model"]),
        _row("a random walk", report["random_walk"]),
    ]
    for title, prefix in (("kinds", ""), ("layers", "layer ")):
        groups = report[title]
        if len(groups) > 1:
            lines.append(f"{title}, best to worst")
            lines += [
                "  …" if label is None else _row(f"  {prefix}{label}"[:28], groups[label])
                for label in _best_and_worst(groups)
            ]
    return lines


def _best_and_worst(groups: Mapping[str, Mapping[str, Any]]) -> list[str | None]:
    """Labels by skill, or explained variance where that is undefined; None: some left out."""

    def merit(label: str) -> tuple[float, float]:
        entry = groups[label]
        values = (entry["backtest_skill"], entry["explained_variance"])
        first, second = (float("-inf") if value is None else value for value in values)
        return first, second

    ranked = sorted(groups, key=merit, reverse=True)
    if len(ranked) <= 2 * SHOWN_GROUPS:
        return list(ranked)
    return [*ranked[:SHOWN_GROUPS], None, *ranked[-SHOWN_GROUPS:]]


def _trial_lines(trials: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> list[str]:
    """Continuations in rows, trials in columns."""
    lines = [_line("  fitted on", [str(t["checkpoints"]) for t in trials])]
    lines.append(_line("  ratio", [f"{t['ratio']:.3g}×" for t in trials]))
    for key, label in labels.items():
        cells = [cell(t["skill"][key], "+.2f") for t in trials]
        lines.append(_line(f"  {label}", cells))
    return lines


def _thinned(trials: Sequence[Mapping[str, Any]], cut: int | None) -> list[Mapping[str, Any]]:
    """At most eight trials, the one at the user's own ratio always among them."""
    kept = list(trials)
    while len(kept) > len(COLUMNS):
        del kept[next(i for i in (1, 3, 5, 7, 0) if kept[i]["checkpoints"] != cut)]
    return kept


def _backtests(report: Mapping[str, Any]) -> list[str]:
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


def _choice(report: Mapping[str, Any]) -> list[str]:
    """The predictor that was chosen, why, and what spoke for the others."""
    choice = report.get("choice")
    if choice is None:
        return []
    lines = [f"chosen predictor: {chosen(choice)}"]
    for reason in choice["reasons"]:
        lines += wrap(reason, WIDTH, initial_indent="  - ", subsequent_indent="    ")
    group = next(g for g in choice["groups"].values() if g["predictor"] == choice["predictor"])
    if group["candidates"]:
        lines.append(_line("  skill at the target", ["expected", "likely ≥", "backtest"]))
    for name, found in group["candidates"].items():
        figures = (found[key] for key in ("expected", "low", "same_ratio"))
        lines.append(_line(f"  {name}", [cell(figure, "+.2f") for figure in figures]))
    if choice["curve"]:
        shown = choice["curve"][:: -(-len(choice["curve"]) // len(COLUMNS))]
        lines.append(_line("  step", [f"{step:g}" for step, *_ in shown]))
        lines.append(_line("  best predictor", [name[:8] for _, name, *_ in shown]))
        lines.append(_line("  its skill", [cell(point[3], "+.2f") for point in shown]))
    return lines


def chosen(choice: Mapping[str, Any]) -> str:
    """The predictors of a choice; with how many groups have each, where there are several."""
    counts = Counter(group["predictor"] for group in choice["groups"].values())
    if len(counts) == 1:
        return f"{choice['predictor']} (once per {choice['scope']})"
    named = ", ".join(f"{name} for {count}" for name, count in counts.most_common())
    return f"{named} {choice['scope']}s"


def _verdict(report: Mapping[str, Any]) -> list[str]:
    verdict = report["verdict"]
    lines = [f"verdict: {verdict['verdict']}"]
    for reason in verdict["reasons"]:
        lines += wrap(reason, WIDTH, initial_indent="  - ", subsequent_indent="    ")
    return lines
