"""The tables and maps of the page: values under the mouse, headings with their meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from relex_merge.formatting import UNDEFINED, cell
from relex_merge.report.columns import COLUMNS, SIZE, Column
from relex_merge.report.contents import TensorEntry
from relex_merge.report.evaluation_tables import Grid
from relex_merge.report.maps import MOST_LABELS, NOTHING, Map
from relex_merge.report.sampled import error_cell
from relex_merge.report.table import Cell, Row, Table

_SHADES = 8  # of the scale below a map


def tensor_table(tensors: Mapping[str, TensorEntry]) -> str:
    """Return the table of all tensors, which the page's script sorts and filters."""
    columns = (*COLUMNS, SIZE)
    heads = [("tensor", "name of the tensor"), *((c.heading, c.meaning) for c in columns)]
    head = "".join(
        f'<th scope="col" title="{escape(meaning)}"><button type="button">{escape(heading)}'
        "</button></th>"
        for heading, meaning in heads
    )
    rows = "\n".join(_tensor_row(name, entry, columns) for name, entry in tensors.items())
    return f'<table id="tensors"><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>'


def _tensor_row(name: str, entry: TensorEntry, columns: Sequence[Column]) -> str:
    cells = [f'<td data-value="{escape(name)}">{escape(name)}</td>']
    for column in columns:
        value = entry[column.key]
        raw = "" if value is None else repr(value)
        under = f"{column.heading} {raw or 'is undefined'}"
        error = error_cell(entry, column.key, column.form)
        shown = f"{column.shown(value)} {error}".strip()
        cells.append(f'<td data-value="{raw}" title="{escape(under)}">{escape(shown)}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def table(found: Table) -> str:
    """Return a table of the report with its title."""
    meanings = found.meanings or ("",) * len(found.headings)
    heads = "".join(map(_heading, found.headings, meanings))
    rows = "\n".join(_row(row, found.headings) for row in found.rows)
    note = f"\n<p>{escape(found.note)}</p>" if found.note else ""
    return (
        f'<h3>{escape(found.title)}</h3>\n<div class="scroll"><table><thead><tr><th></th>{heads}'
        f"</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>{note}"
    )


def _heading(heading: Cell, meaning: str) -> str:
    title = f' title="{escape(meaning)}"' if meaning else ""
    tone = f' class="{heading.tone}"' if heading.tone else ""
    return f'<th scope="col"{title}{tone}>{escape(heading.text)}</th>'


def _row(row: Row, headings: Sequence[Cell]) -> str:
    if not row.cells:
        span = len(headings) + 1
        return f'<tr class="group"><td colspan="{span}">{escape(row.label)}</td></tr>'
    cells = "".join(
        _cell(found, f"{row.label.strip()}, {heading.text}: {found.text}")
        for found, heading in zip(row.cells, headings, strict=True)
    )
    return f'<tr><th scope="row">{escape(row.label)}</th>{cells}</tr>'


def _cell(found: Cell, under: str) -> str:
    tone = f' class="{found.tone}"' if found.tone else ""
    return f'<td{tone} title="{escape(under)}">{escape(found.text)}</td>'


def grid_table(grid: Grid) -> str:
    """Return a table of an evaluation."""
    heads = "".join(f'<th scope="col">{escape(text)}</th>' for text in grid.headers)
    rows = "\n".join(
        f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in grid.rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n'
        "</tbody></table></div>"
    )


def map_figure(shown: Map) -> str:
    """Return a map as a table of coloured cells, each with its value under the mouse."""
    caption = f"<figcaption>{escape(shown.title)}</figcaption>"
    if np.isnan(shown.values).all():
        return f'<figure class="map">{caption}<p class="about">{NOTHING}</p></figure>'
    every = -(-len(shown.layers) // MOST_LABELS)
    heads = "".join(
        f'<th scope="col">{escape(name) if i % every == 0 else ""}</th>'
        for i, name in enumerate(shown.layers)
    )
    rows = "\n".join(
        f'<tr><th scope="row" class="kind" title="{escape(kind)}">{escape(kind)}</th>'
        + "".join(
            _map_cell(shown, kind, layer, float(value))
            for layer, value in zip(shown.layers, values, strict=True)
        )
        + "</tr>"
        for kind, values in zip(shown.kinds, shown.values, strict=True)
    )
    low, high = shown.limits
    shades = ", ".join(_colour(shown, x) for x in np.linspace(low, high, _SHADES))
    return (
        f'<figure class="map">{caption}<div class="scroll"><table><thead><tr><td class="kind"></td>'
        f"{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
        f'<div class="scale" style="background: linear-gradient(to right, {shades})"></div>'
        f'<div class="ends"><span>≤ {cell(low, ".2f")}</span><span>{cell(high, ".2f")}</span></div>'
        "</figure>"
    )


def _map_cell(shown: Map, kind: str, layer: str, value: float) -> str:
    if np.isnan(value):
        return '<td class="nothing"></td>'
    where = kind if layer == UNDEFINED else f"layer {layer}, {kind}"
    title = escape(f"{where}: {cell(value, shown.form)}")
    return f'<td style="background: {_colour(shown, value)}" title="{title}"></td>'


def _colour(shown: Map, value: float) -> str:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    low, high = shown.limits
    return to_hex(colormaps[shown.colours]((value - low) / (high - low)))
