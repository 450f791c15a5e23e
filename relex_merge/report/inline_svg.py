"""A figure as an <svg> element of a page: its text is text, its colours are the page's own."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import numpy as np

from relex_merge.report.style import svg_settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_POINTS = 72  # in an inch, the unit of matplotlib's SVG
_NEAR = 0.5  # points; a marker lies on its datum but for rounding

# What is black, white or grey on paper follows the page, light or dark.
_COLOURS = {
    "#000000": "currentColor",
    "#ffffff": "var(--page)",
    "#4c4c4c": "var(--grey)",
    "#4d4d4d": "var(--grey)",
    "#595959": "var(--grey)",
    "#666666": "var(--grey)",
    "#cccccc": "var(--band)",
    "#a50026": "var(--red)",
    "#0072b2": "var(--blue)",
}


def inline_svg(figure: Figure, name: str, title: str, description: str) -> str:
    """Return a figure as an element.

    Args:
        figure: of one axes, and insets of it.
        name: of the figure in its page, unlike that of any other.
        title: what it shows, in a few words.
        description: what is seen in it, for those who cannot.
    """
    marks = _marks(figure.axes[0], name)
    buffer = io.StringIO()
    with svg_settings(name):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    root = ET.fromstring(buffer.getvalue())  # matplotlib's own
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
    for metadata in root.findall("metadata"):
        root.remove(metadata)
    for group in root.iter("g"):
        if group.get("id") in marks:
            _name_values(group, marks[group.attrib["id"]], figure)
    _keep_needed_names(root)
    for element in root.iter():
        if _LINK in element.attrib:
            element.set("href", element.attrib.pop(_LINK))
        if "style" in element.attrib:
            element.set("style", _of_the_page(element.attrib["style"]))
    for size in ("width", "height"):
        root.attrib.pop(size, None)  # the page's to say
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title {name}-description")
    for i, (tag, part, text) in enumerate(
        (("title", "title", title), ("desc", "description", description))
    ):
        element = ET.Element(tag, id=f"{name}-{part}")
        element.text = text
        root.insert(i, element)
    return ET.tostring(root, encoding="unicode")


def _of_the_page(style: str) -> str:
    return re.sub(r"#[0-9a-f]{6}", lambda colour: _COLOURS.get(colour[0], colour[0]), style)


def _marks(axes: Axes, name: str) -> dict[str, Line2D]:
    """Give every line with markers an id by which it is found in the SVG."""
    found = {}
    for i, line in enumerate(axes.lines):
        if line.get_marker() not in ("", " ", "None", None):
            line.set_gid(f"{name}-line-{i}")
            found[f"{name}-line-{i}"] = line
    return found


def _name_values(group: ET.Element, line: Line2D, figure: Figure) -> None:
    """Give every marker of a line its values as a title, which browsers show under the mouse.

    Markers outside the figure are not drawn, so they are told apart by their places.
    """
    data = np.asarray(line.get_xydata(), np.float64)
    places = line.get_transform().transform(data) * _POINTS / figure.dpi
    places[:, 1] = figure.get_figheight() * _POINTS - places[:, 1]
    label, axis = str(line.get_label()), line.axes.get_xlabel() if line.axes else ""
    series = "" if label.startswith("_") else f"{label}: "
    for use in group.iter("use"):
        place = np.asarray([float(use.get("x", "nan")), float(use.get("y", "nan"))])
        distance = np.nan_to_num(np.abs(places - place).max(axis=1), nan=np.inf)
        nearest = int(distance.argmin())
        if distance[nearest] < _NEAR:
            x, y = data[nearest]
            ET.SubElement(use, "title").text = f"{series}{axis} {x:.4g}, {y:.3g}"


def _keep_needed_names(root: ET.Element) -> None:
    """Remove the ids that nothing refers to: other figures of the page have the same."""
    text = ET.tostring(root, encoding="unicode")
    needed = {*re.findall(r'href="#([^"]+)"', text), *re.findall(r"url\(#([^)]+)\)", text)}
    for element in root.iter():
        if element.get("id") not in needed:
            element.attrib.pop("id", None)
