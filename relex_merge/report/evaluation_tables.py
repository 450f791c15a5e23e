"""An evaluation as text to paste: a table like lm-eval's, functional figures, verdict, choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relex_merge.formatting import cell
from relex_merge.report.evaluation import Evaluation, TaskEntry

_TASKS = ("Tasks", "Filter", "Metric", "Model", "Value", "", "Stderr", "Difference", "", "Stderr")
_ENDS = ("n", "Split")


@dataclass(frozen=True)
class Grid:
    """A table: headings, and rows of as many texts."""

    headers: tuple[str, ...]
    rows: list[tuple[str, ...]]


def task_grid(evaluation: Evaluation) -> Grid:
    """Tabulate the scores of all models in all tasks; without rows where there are none."""
    rows = [
        _task_row(task, entry) for task, entries in evaluation["tasks"].items() for entry in entries
    ]
    return Grid((*_TASKS, *_ENDS), rows)


def function_grids(evaluation: Evaluation) -> list[Grid]:
    """Tabulate functional backtests, where there are any, and divergences."""
    function = evaluation["function"]
    tests = [
        (f"{t['ratio']:.3g}×", cell(t["skill"], "+.2f"), "±", cell(t["stderr"], ".2f"))
        for t in function["backtests"]
    ]
    models = [
        (m["model"], f"{m['kl']:.3g}", "±", cell(m["stderr"], ".2g"))
        for m in [*function["candidates"], *function["others"]]
    ]
    grids = [Grid(("Backtest", "Skill", "", "Stderr"), [*tests])] if tests else []
    return [*grids, Grid(("Model", "KL from last (nats a token)", "", "Stderr"), [*models])]


def text_of(evaluation: Evaluation) -> str:
    """Name the text that functions were compared on."""
    function = evaluation["function"]
    return f"{function['tokens']} tokens, {function['prompts']} prompts ({function['text']})"


def render_tasks(evaluation: Evaluation) -> str:
    """Return the scores of all models as a Markdown table, and what they say; empty without any."""
    grid = task_grid(evaluation)
    if not grid.rows:
        return ""
    return "\n".join([_table(grid), "", *_list(evaluation["sentences"])])


def render_function(evaluation: Evaluation) -> str:
    """Return functional backtests and divergences as Markdown tables."""
    return "\n\n".join([text_of(evaluation), *map(_table, function_grids(evaluation))])


def render_verdict(evaluation: Evaluation) -> str:
    """Return the verdict, what every kind of evidence says and cannot see, and the choice."""
    verdict, chosen = evaluation["verdict"], evaluation["chosen"]
    lines = [f"**{verdict['verdict']}** (evidence: {verdict['evidence']})", ""]
    for statement in verdict["statements"]:
        word = statement["verdict"] or "cannot tell"
        lines.append(f"- {statement['evidence']}: {word}")
        lines += [f"  - {says}" for says in statement["says"]]
        lines.append(f"  - {statement['cannot_see']}")
    return "\n".join([*lines, "", f"Chosen: **{chosen['model']}**", *_list(chosen["reasons"])])


def _task_row(task: str, entry: TaskEntry) -> tuple[str, ...]:
    metric, _, filter_ = entry["metric"].partition(",")
    repeats = f" (mean@{entry['repeats']})" if entry["repeats"] > 1 else ""
    return (
        task,
        filter_ or "none",
        metric + repeats,
        entry["model"],
        f"{entry['score']:.4f}",
        "±",
        cell(entry["stderr"], ".4f"),
        cell(entry["difference"], "+.4f"),
        "±",
        cell(entry["difference_stderr"], ".4f"),
        str(entry["n"]),
        entry["split"],
    )


def _table(grid: Grid) -> str:
    widths = [max(map(len, column)) for column in zip(grid.headers, *grid.rows, strict=True)]
    rule = "|".join("-" * (width + 2) for width in widths)
    lines = [_line(grid.headers, widths), f"|{rule}|", *(_line(row, widths) for row in grid.rows)]
    return "\n".join(lines)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)) + " |"


def _list(sentences: Sequence[str]) -> list[str]:
    return [f"- {sentence}" for sentence in sentences]
