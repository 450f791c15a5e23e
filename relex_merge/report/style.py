"""How figures are made: matplotlib, found late, drawn without a display, the same on every run."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from relex_merge.errors import RelexError, not_installed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito's colours: told apart by colour-blind readers and, with markers, in grey print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
RED = "#A50026"
GREY = "0.35"
MARKERS = ("o", "s", "^", "D", "v", "P")


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure.

    Args:
        width: in inches.
        height: in inches.

    Raises:
        RelexError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise not_installed("plots need matplotlib", "plot") from error
    return Figure(figsize=(width, height), layout="constrained")


def check_format(path: Path) -> None:
    """Raise RelexError for a suffix that matplotlib cannot write, and when it is missing."""
    formats = new_figure(1, 1).canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise RelexError(f"{path}: a plot can be {', '.join(sorted(formats))}, by its suffix")


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the path's suffix.

    Args:
        figure: the figure.
        path: the file, .png, .svg or .pdf.

    Raises:
        RelexError: matplotlib cannot write that format.
    """
    check_format(path)
    with svg_settings("relex"):
        figure.savefig(path, dpi=150)


def svg_settings(name: str) -> AbstractContextManager[None]:
    """Return a context in which text in an SVG is text, and its ids are the same on every run.

    Args:
        name: what the ids are made from; figures of one page need names of their own.
    """
    from matplotlib import rc_context

    return rc_context({"svg.fonttype": "none", "svg.hashsalt": name})
