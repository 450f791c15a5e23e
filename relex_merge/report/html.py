"""The report as one self-contained page: verdict, figures, and a table of every tensor.

Nothing is loaded from anywhere: figures are inline SVG, style and script are in the page. It names
no folder of the machine that it was made on.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from relex_merge.formatting import format_step
from relex_merge.report.columns import COLUMNS, SIZE
from relex_merge.report.contents import Report, VerdictEntry, missing
from relex_merge.report.evaluation_tables import function_grids, task_grid, text_of
from relex_merge.report.html_tables import grid_table, map_figure, table, tensor_table
from relex_merge.report.inline_svg import inline_svg
from relex_merge.report.local_paths import local_names, scrub
from relex_merge.report.maps import skill_map, variance_map
from relex_merge.report.plot import coefficients, draw_backtests, draw_coefficient, draw_spectrum
from relex_merge.report.sampled import sample_lines
from relex_merge.report.style import new_figure
from relex_merge.report.table import TONES, chosen, subject, tables
from relex_merge.trajectory.statistics import SeriesStatistics


def save_html(report: Report, statistics: SeriesStatistics, path: Path) -> None:
    """Write the page to a file, in UTF-8.

    Args:
        report: what it shows.
        statistics: of the observed checkpoints, as given to ``build_report``.
        path: the file.

    Raises:
        RelexError: matplotlib is missing.
    """
    path.write_text(render_html(report, statistics), encoding="utf-8")


def render_html(report: Report, statistics: SeriesStatistics) -> str:
    """Return the page as text; arguments as for :func:`save_html`."""
    report = scrub(report, local_names(report))
    title = f"Trust report, target step {format_step(report['target_step'])}"
    gaps = [missing(gap) for gap in report.get("gaps", [])]
    sections = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="about">{escape(subject(report))}. '
        f"Base {escape(str(report['base'].get('reference')))}.</p>",
        *(f'<p class="about">{escape(line)}.</p>' for line in sample_lines(report)),
        _verdict(report["verdict"]),
        *([f"<h2>Gaps in the report</h2>\n{_list(gaps)}"] if gaps else []),
        _panels(report, statistics),
        *_choice(report),
        "<h2>Summary</h2>",
        *map(table, tables(report)),
        *_evaluation(report),
        "<h2>Tensors</h2>",
        '<div class="filter"><label>Filter <input id="filter" type="search" '
        'placeholder="part of a name" autocomplete="off"></label> '
        '<span id="count" role="status"></span></div>',
        f'<div class="scroll tall" tabindex="0">{tensor_table(report["tensors"])}</div>',
        _meanings(),
        f'<p class="about">{escape(_versions(report))}</p>',
    ]
    body = "\n".join(sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}: {escape(report["verdict"]["verdict"])}</title>
<style>
{_asset("page.css")}</style>
</head>
<body>
{body}
<script>
{_asset("page.js")}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    """Read a file that lies beside this one."""
    return files("relex_merge.report").joinpath(name).read_text("utf-8")


def _verdict(verdict: VerdictEntry) -> str:
    """Return the verdict in the colour of what it says, with its reasons."""
    statements = verdict.get("statements", [])
    said = {says for statement in statements for says in statement["says"]}
    parts = [
        f"<h3>{escape(s['evidence'])}: {escape(s['verdict'] or 'cannot tell')}</h3>\n"
        f"{_list([*s['says'], s['cannot_see']])}"
        for s in statements
    ]
    rest = [reason for reason in verdict["reasons"] if reason not in said]
    evidence = f" (evidence: {escape(verdict['evidence'])})" if "evidence" in verdict else ""
    return (
        f'<section class="verdict {TONES[verdict["verdict"]]}">\n'
        f"<h2>Verdict: <strong>{escape(verdict['verdict'])}</strong>{evidence}</h2>\n"
        + "\n".join([*parts, _list(rest)] if rest else parts)
        + "\n</section>"
    )


def _panels(report: Report, statistics: SeriesStatistics) -> str:
    """Return the panels of the figure, each for itself, so that they fit any width."""
    seen = {
        "spectrum": "the share of the movement on each direction, against that of a random walk",
        "coefficient": "how far the checkpoints lie along the first direction, and where the "
        f"prediction goes on to step {format_step(report['target_step'])}",
        "backtests": "the skill of predicting the last checkpoint from earlier ones, by ratio",
    }
    figures = []
    for name, description in seen.items():
        figure = new_figure(4.4, 4.2)
        axes = figure.subplots()
        if name == "spectrum":
            draw_spectrum(axes, report)
        elif name == "coefficient":
            draw_coefficient(axes, report, coefficients(statistics))
        else:
            draw_backtests(axes, report)
        title = axes.get_title()
        axes.set_title("")
        figures.append(
            f"<figure><figcaption>{escape(title)}<small>{escape(description)}</small></figcaption>"
            f"\n{inline_svg(figure, name, title, description)}</figure>"
        )
    maps = [map_figure(shown) for shown in (variance_map(report), skill_map(report))]
    return "\n".join(
        [
            '<div class="panels">',
            *figures,
            '</div>\n<div class="panels maps">',
            *maps,
            "</div>",
        ]
    )


def _choice(report: Report) -> list[str]:
    choice = report.get("choice")
    if choice is None:
        return []
    named = f"<h2>Predictor</h2>\n<p>chosen predictor: {escape(chosen(choice))}</p>"
    return [named, _list(choice["reasons"])]


def _evaluation(report: Report) -> list[str]:
    """Return the section of the evaluation, nothing without one."""
    evaluation = report.get("evaluation")
    if evaluation is None:
        return []
    tasks = task_grid(evaluation)
    return [
        "<h2>Evaluation</h2>",
        f"<p>{escape(text_of(evaluation))}</p>",
        *map(grid_table, function_grids(evaluation)),
        *([grid_table(tasks), _list(evaluation["sentences"])] if tasks.rows else []),
    ]


def _list(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


def _meanings() -> str:
    """Return the legend of the columns, for those who have no mouse to point with."""
    items = "".join(
        f"<dt>{escape(column.heading)}</dt><dd>{escape(column.meaning)}</dd>"
        for column in (*COLUMNS, SIZE)
    )
    return f"<details><summary>What the columns mean</summary><dl>{items}</dl></details>"


def _versions(report: Report) -> str:
    return ", ".join(f"{name} {version}" for name, version in report["versions"].items())
