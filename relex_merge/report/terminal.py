"""The report on a terminal: verdict, reasons, tables, and a legend; whole in 80 columns."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from relex_merge.report.columns import COLUMNS
from relex_merge.report.contents import Report, missing
from relex_merge.report.sampled import sample_lines
from relex_merge.report.table import TONES, Row, Table, Tone, chosen, subject, tables

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table as Grid

WIDTH = 80  # where there is no terminal that says how wide it is
WIDEST = 110  # beyond, lines are hard to follow
STYLES: dict[Tone, str] = {
    "": "",
    "good": "green",
    "bad": "red",
    "doubt": "yellow",
    "own": "bold underline",
}


def print_report(report: Report) -> None:
    """Print the report on stdout: as wide as the terminal, and in colour where it is one."""
    from rich.console import Console

    console = Console(highlight=False)
    console.width = min(console.width, WIDEST)
    _print(report, console)


def render_text(report: Report, width: int = WIDTH) -> str:
    """Return what :func:`print_report` shows, as plain text of ``width`` columns."""
    from rich.console import Console

    buffer = io.StringIO()
    _print(report, Console(file=buffer, width=width, color_system=None, highlight=False))
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def _print(report: Report, console: Console) -> None:
    for i, part in enumerate(_parts(report, console.width)):
        if i:
            console.print()
        # a path that is longer than a line stays whole, so that it can be copied
        console.print(*part, sep="\n", overflow="ignore", crop=False)


def _parts(report: Report, width: int) -> Iterator[list[RenderableType]]:
    from rich.text import Text

    yield [_verdict(report), *_items(_reasons(report), width)]
    gaps = [missing(gap) for gap in report.get("gaps", [])]
    if gaps:
        yield [Text("gaps in this report", style="bold"), *_items(gaps, width)]
    choice = report.get("choice")
    if choice is not None:
        yield [Text(f"chosen predictor: {chosen(choice)}"), *_items(choice["reasons"], width)]
    sampled = [Text(textwrap.fill(line, width)) for line in sample_lines(report)]
    yield [Text(subject(report)), *sampled]
    for table in tables(report):
        note = (
            [Text(textwrap.fill(table.note, width, break_on_hyphens=False))] if table.note else []
        )
        yield [Text(table.title, style="bold"), _grid(table, width), *note]
    yield [_legend()]


def _verdict(report: Report) -> RenderableType:
    from rich.text import Text

    verdict = report["verdict"]
    style = f"bold {STYLES[TONES[verdict['verdict']]]}".strip()
    text = Text.assemble(("verdict: ", "bold"), (verdict["verdict"], style))
    if "evidence" in verdict:
        text.append(f" (evidence: {verdict['evidence']})")
    return text


def _reasons(report: Report) -> list[str]:
    """Return the reasons; those of each kind of evidence by its name, where there are several."""
    verdict = report["verdict"]
    said = [
        f"{statement['evidence']}: {statement['verdict'] or 'cannot tell'}. {says}"
        for statement in verdict.get("statements", [])
        for says in statement["says"]
    ]
    told = {says for s in verdict.get("statements", []) for says in s["says"]}
    return said + [reason for reason in verdict["reasons"] if reason not in told]


def _items(sentences: Sequence[str], width: int) -> list[RenderableType]:
    from rich.text import Text

    return [
        Text(
            textwrap.fill(
                sentence,
                width,
                initial_indent="  - ",
                subsequent_indent="    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
        )
        for sentence in sentences
    ]


def _grid(table: Table, width: int) -> Grid:
    """Lay out a table; a label that leaves no room for the figures goes on in the next line."""
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=None, padding=(0, 2 if width > WIDTH else 1, 0, 0), pad_edge=False)
    grid.add_column(overflow="fold")
    for heading in table.headings:
        text = Text(heading.text, style=STYLES[heading.tone])
        grid.add_column(text, justify="right", no_wrap=True, header_style="not bold")
    for row in table.rows:
        grid.add_row(*_cells(row))
    return grid


def _cells(row: Row) -> list[RenderableType]:
    from rich.text import Text

    label = Text(row.label, style="" if row.cells else "dim")
    return [label, *(Text(cell.text, style=STYLES[cell.tone]) for cell in row.cells)]


def _legend() -> RenderableType:
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for column in COLUMNS:
        grid.add_row(Text(column.heading, style="dim"), Text(column.meaning, style="dim"))
    return grid
