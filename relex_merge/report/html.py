"""The report as one self-contained page: verdict, figure, and a sortable table of every tensor.

Nothing is loaded from anywhere: the figure is inline SVG, the style and the few lines of script
that sort the table are in the page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from relex_merge.formatting import cell
from relex_merge.report.contents import Report, TensorEntry, missing
from relex_merge.report.evaluation_tables import render_function, render_tasks
from relex_merge.report.plot import draw
from relex_merge.report.sampled import error_cell
from relex_merge.report.table import COLUMNS, render_table
from relex_merge.trajectory.statistics import SeriesStatistics

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem;
       color: #1a1a1a; background: #fff }
svg { max-width: 100%; height: auto }
pre { overflow-x: auto; background: #f6f6f6; padding: 1rem; font-size: 13px }
.table { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
th button { font: inherit; font-weight: 600; border: 0; background: none; cursor: pointer }
.verdict { border-left: .4rem solid #0072B2; padding: .2rem 1rem }
"""

SCRIPT = """
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const header = button.parentElement, body = document.querySelector("#tensors tbody");
    const column = [...header.parentElement.children].indexOf(header);
    const down = header.getAttribute("aria-sort") !== "descending";
    for (const other of header.parentElement.children) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => row.children[column].dataset.value;
    const compare = (a, b) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      const order = column ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true });
      return down ? -order : order;
    };
    body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
  });
}
"""


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
    verdict = report["verdict"]
    gaps = [missing(gap) for gap in report.get("gaps", [])]
    title = f"Trust report, target step {report['target_step']:g}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p>Base {escape(str(report["base"].get("reference")))}</p>
<section class="verdict">
<h2>Verdict: {escape(verdict["verdict"])}</h2>
{_list(verdict["reasons"])}
</section>{_section("Gaps in the report", gaps)}
<figure>
{_inline_svg(report, statistics)}
</figure>
<h2>Summary</h2>
<pre>{escape(render_table(report))}</pre>
{_evaluation(report)}<h2>Tensors</h2>
<p>Click a heading to sort.</p>
<div class="table">
{_tensor_table(report)}
</div>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _evaluation(report: Report) -> str:
    """Return the section of the evaluation, empty without one."""
    evaluation = report.get("evaluation")
    if evaluation is None:
        return ""
    text = "\n\n".join(
        part.rstrip() for part in (render_function(evaluation), render_tasks(evaluation)) if part
    )
    return f"<h2>Evaluation</h2>\n<pre>{escape(text)}</pre>\n"


def _list(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


def _section(title: str, sentences: Sequence[str]) -> str:
    return f"\n<h2>{escape(title)}</h2>\n{_list(sentences)}" if sentences else ""


def _inline_svg(report: Report, statistics: SeriesStatistics) -> str:
    """Return the figure as an <svg> element, without the prolog that names a DTD on the web."""
    buffer = io.StringIO()
    draw(report, statistics).savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)


def _tensor_table(report: Report) -> str:
    titles = ["tensor", *(title for title, _, _ in COLUMNS), "weights"]
    head = "".join(f'<th scope="col"><button>{escape(title)}</button></th>' for title in titles)
    rows = "\n".join(_tensor_row(name, entry) for name, entry in report["tensors"].items())
    return f'<table id="tensors"><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>'


def _tensor_row(name: str, entry: TensorEntry) -> str:
    figures = [(entry[key], form, error_cell(entry, key, form)) for _, key, form in COLUMNS]
    cells = [f'<td data-value="{escape(name)}">{escape(name)}</td>']
    for value, form, error in [*figures, (entry["numel"], ",d", "")]:
        raw = "" if value is None else repr(value)
        shown = " ".join(part for part in (cell(value, form), error) if part)
        cells.append(f'<td data-value="{raw}">{escape(shown)}</td>')
    return f"<tr>{''.join(cells)}</tr>"
