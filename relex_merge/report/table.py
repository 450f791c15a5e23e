"""The tables of a report as plain text cells, for whoever draws them: the terminal and the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from relex_merge.formatting import cell
from relex_merge.report.columns import COLUMNS
from relex_merge.report.contents import Report, Skills, TensorEntry, TrialEntry, WalkEntry
from relex_merge.report.sampled import error_cell
from relex_merge.trajectory.backtests.entries import ChoiceEntry, horizons
from relex_merge.trajectory.backtests.results import Word

SHOWN_GROUPS = 3  # best and worst of layers and of kinds
SHOWN_TRIALS = 8  # as many as fit in 80 columns

# What a cell or a verdict says at a glance; own: of the ratio that was asked for.
Tone: TypeAlias = Literal["", "good", "bad", "doubt", "own"]
TONES: dict[Word, Tone] = {
    "extrapolate": "good",
    "caution": "doubt",
    "do not extrapolate": "bad",
    "not enough checkpoints to tell": "doubt",
    "weights cannot tell": "doubt",
    "sample too small to tell": "doubt",
    "nothing to extrapolate": "",
}


@dataclass(frozen=True)
class Cell:
    """A text, and what it says at a glance."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Row:
    """A line of a table; one without cells is the heading of those below it."""

    label: str
    cells: tuple[Cell, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: what it shows.
        headings: of the columns beside the labels.
        rows: its lines.
        meanings: of the headings, where they have any.
        note: a sentence below it, if there is one.
    """

    title: str
    headings: tuple[Cell, ...]
    rows: tuple[Row, ...]
    meanings: tuple[str, ...] = ()
    note: str = ""


# What `python -m tests.benchmarks.defaults --seeds 61,62,63` found; recipes/predictors.md has more.
WHY_A_LINE = (
    "A line in one direction is the default, as in the paper. On 36 small runs rank 3 ended 0.4 "
    "points of accuracy above it (many rollouts a step) and 1.9 below it (few), the two-point line "
    "0.6 and 0.8 above it; which is best on yours, `relex-merge evaluate` measures."
)


def subject(report: Report) -> str:
    """Say in a sentence what the report is about."""
    steps, ratio = report["steps"], report["ratio"]
    further = f", {ratio:.3g}× the last" if ratio else ""
    return (
        f"{len(steps)} checkpoints, steps {steps[0]:g} to {steps[-1]:g}; target step "
        f"{report['target_step']:g}{further}; {len(report['tensors'])} tensors"
    )


def tables(report: Report) -> list[Table]:
    """Return the tables of a report, each row in one of them only."""
    found = [figures(report), *backtests(report)]
    choice = report.get("choice")
    return [*found, *(choice_tables(choice) if choice else [])]


def figures(report: Report) -> Table:
    """Tabulate the whole model, a random walk, and the best and worst kinds and layers."""
    rows = [
        Row("whole model", _figures_of(report["model"])),
        *_errors(report["model"]),
        Row("a random walk", _figures_of(report["random_walk"])),
    ]
    for title, prefix, groups in (
        ("kinds", "", report["kinds"]),
        ("layers", "layer ", report["layers"]),
    ):
        if len(groups) > 1:
            rows.append(Row(f"{title}, best to worst"))
            rows += [
                Row(f" {prefix}{label}", _figures_of(groups[label])) if label else Row(" …")
                for label in _best_and_worst(groups)
            ]
    return Table(
        "Figures",
        tuple(Cell(column.heading) for column in COLUMNS),
        tuple(rows),
        tuple(column.meaning for column in COLUMNS),
    )


def _errors(entry: TensorEntry) -> list[Row]:
    """Return the standard errors of a sampled series; nothing where every number was read."""
    if "standard_errors" not in entry:
        return []
    cells = tuple(Cell(error_cell(entry, column.key, column.form)) for column in COLUMNS)
    return [Row(" standard error", cells)]


def skill_cell(value: float | None) -> Cell:
    """Write a skill: good above 0, bad below."""
    tone: Tone = "" if value is None or value == 0 else "good" if value > 0 else "bad"
    return Cell(cell(value, "+.2f"), tone)


def _figures_of(entry: TensorEntry | WalkEntry) -> tuple[Cell, ...]:
    """Return the cells of an entry; a random walk has not all of the figures."""
    values: Mapping[str, object] = entry
    cells = []
    for column in COLUMNS:
        value = values.get(column.key)
        number = value if isinstance(value, (int, float)) else None
        skill = column.key == "backtest_skill"
        cells.append(skill_cell(number) if skill else Cell(column.shown(number)))
    return tuple(cells)


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


def backtests(report: Report) -> list[Table]:
    """Tabulate the skill of every predictor: in backtests, and at held-out checkpoints."""
    tests, found = report["backtests"], []
    if tests["grid"]:
        trials = _thinned(tests["grid"], tests["cut"])
        counts = tuple(Cell(str(trial["checkpoints"])) for trial in trials)
        own = [
            f" (yours {report['ratio']:.3g}×, nearest {t['ratio']:.3g}×)"
            for t in trials
            if t["checkpoints"] == tests["cut"]
        ]
        found.append(
            Table(
                f"Backtests: skill at the last checkpoint, by ratio{''.join(own)}",
                tuple(
                    Cell(f"{t['ratio']:.3g}×", "own" if t["checkpoints"] == tests["cut"] else "")
                    for t in trials
                ),
                (Row("fitted on the first", counts), *_skill_rows(trials, tests["labels"])),
                note=WHY_A_LINE if _is_default(report) else "",
            )
        )
    if report["holdout"]:
        trials = report["holdout"][-SHOWN_TRIALS:]
        ratios = tuple(Cell(f"{trial['ratio']:.3g}×") for trial in trials)
        found.append(
            Table(
                "True skill at held-out checkpoints, by step",
                tuple(Cell(f"{trial['step']:g}") for trial in trials),
                (Row("ratio", ratios), *_skill_rows(trials, tests["labels"])),
            )
        )
    return found


def _is_default(report: Report) -> bool:
    """Tell whether a report is of the method as it is without parameters."""
    method = report["method"]
    plain = {"predictor": "linear", "rank": 1, "degree": 1, "anchor": "line", "scale": 1}
    return method["mode"] == "extrapolate" and all(
        method.get(name, value) == value for name, value in plain.items()
    )


def distinct(trials: Sequence[TrialEntry], labels: Mapping[str, str]) -> dict[str, str]:
    """Return predictor → label, without those that are the recipe's own under another name."""

    def row(key: str) -> list[float | None]:
        return [trial["skill"][key] for trial in trials]

    twins = [k for k in labels if k != "method" and _same(row(k), row("method"))]
    kept = {key: label for key, label in labels.items() if key not in twins}
    if twins and "method" in kept:
        kept["method"] = f"{labels[twins[0]]} (recipe)"
    return kept


def _same(a: Sequence[float | None], b: Sequence[float | None]) -> bool:
    """Tell whether two rows of skills are the same but for the rounding of their sums."""
    return all(
        x is y if x is None or y is None else abs(x - y) <= 1e-9 * max(1.0, abs(x))
        for x, y in zip(a, b, strict=True)
    )


def _skill_rows(trials: Sequence[TrialEntry], labels: Mapping[str, str]) -> list[Row]:
    skills: list[Skills] = [trial["skill"] for trial in trials]
    return [
        Row(label, tuple(skill_cell(skill[key]) for skill in skills))
        for key, label in distinct(trials, labels).items()
    ]


def _thinned(trials: Sequence[TrialEntry], cut: int | None) -> list[TrialEntry]:
    """Keep as many trials as are shown, the one at the user's own ratio always among them."""
    kept = list(trials)
    while len(kept) > SHOWN_TRIALS:
        del kept[next(i for i in (1, 3, 5, 7, 0) if kept[i]["checkpoints"] != cut)]
    return kept


def choice_tables(choice: ChoiceEntry) -> list[Table]:
    """Tabulate what spoke for each predictor, and how far the best of them carries."""
    found = []
    group = next(g for g in choice["groups"].values() if g["predictor"] == choice["predictor"])
    if group["candidates"]:
        rows = tuple(
            Row(name, tuple(map(skill_cell, (c["expected"], c["low"], c["same_ratio"]))))
            for name, c in group["candidates"].items()
        )
        headings = (Cell("expected"), Cell("likely ≥"), Cell("backtest"))
        found.append(Table("Candidates: skill at the target", headings, rows))
    curve = horizons(choice)
    if curve:
        shown = curve[:: -(-len(curve) // SHOWN_TRIALS)]
        found.append(
            Table(
                "Best predictor at each step, and its expected skill",
                tuple(Cell(f"{step:g}") for step, *_ in shown),
                (
                    Row("predictor", tuple(Cell(name[:8]) for _, name, *_ in shown)),
                    Row("skill", tuple(skill_cell(expected) for *_, expected in shown)),
                ),
            )
        )
    return found


def chosen(choice: ChoiceEntry) -> str:
    """Name the predictors of a choice; with how many groups have each, where there are several."""
    counts = Counter(group["predictor"] for group in choice["groups"].values())
    if len(counts) == 1:
        return f"{choice['predictor']} (once per {choice['scope']})"
    named = ", ".join(f"{name} for {count}" for name, count in counts.most_common())
    return f"{named} {choice['scope']}s"
