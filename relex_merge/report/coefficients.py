"""Coefficients of tensors against step, in and out of sample (Finding 2 of the RELEX paper).

In sample: c_k(t) = ⟨δ_t, v_k⟩ with the directions v_k of all observed checkpoints. Out of sample:
v_k from the first checkpoints only, and every later one projected onto it, ⟨δ_t, v_k⟩ =
(G_·t)ᵀu_k/σ_k. A coefficient that stays on its line there is what makes an extrapolation work.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from relex_merge.errors import RelexError
from relex_merge.trajectory.gram import Array, least_squares_rows
from relex_merge.trajectory.spectra import spectra
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics


@dataclass(frozen=True)
class Projection:
    """Coefficients of one tensor along directions fitted on its first h checkpoints.

    Attributes:
        steps: (T,) of all checkpoints.
        fitted: h; checkpoints beyond are out of sample.
        coefficients: (T, rank), in weight.
        line: (T, rank), least squares through the first h.
        captured: (T,), share of ‖δ_t‖² that the directions hold, NaN where δ_t is 0.
    """

    steps: Array
    fitted: int
    coefficients: Array
    line: Array
    captured: Array


def project(gram: Array, steps: Array, *, fitted: int, rank: int = 1) -> Projection:
    """Project all checkpoints on directions of the first ones.

    Args:
        gram: G (T, T), in weight².
        steps: (T,) ascending.
        fitted: how many checkpoints the directions come from.
        rank: how many directions; those beyond the numerical rank have coefficient 0.

    Raises:
        RelexError: ``fitted`` is not 2 to T, or ``rank`` not 1 to ``fitted``.
    """
    if not 2 <= fitted <= len(steps):
        raise RelexError(f"{fitted} checkpoints to fit on; there must be 2 to {len(steps)}")
    if not 1 <= rank <= fitted:
        raise RelexError(f"rank is {rank}; with {fitted} checkpoints it must be 1 to {fitted}")
    found = spectra(gram[np.newaxis, :fitted, :fitted])
    sigma = np.sqrt(found.eigenvalues[0, :rank])
    c = gram[:, :fitted] @ found.vectors[0, :, :rank] / np.where(sigma > 0, sigma, np.inf)
    c = c * np.where(c[:fitted].sum(axis=0) < 0, -1.0, 1.0)
    squared = np.diag(gram)
    return Projection(
        steps=steps,
        fitted=fitted,
        coefficients=c,
        line=least_squares_rows(steps[:fitted], steps) @ c[:fitted],
        captured=(c**2).sum(axis=1) / np.where(squared > 0, squared, np.nan),
    )


def coefficients_csv(
    statistics: SeriesStatistics,
    names: Sequence[str] | None = None,
    *,
    fitted: int | None = None,
    rank: int = 1,
) -> str:
    """Write CSV: tensor, step, in_sample, rank, coefficient, line, captured; a row per number.

    Args:
        statistics: of all checkpoints.
        names: tensors; all by default.
        fitted: how many checkpoints the directions come from; all by default.
        rank: how many directions.

    Raises:
        RelexError: there is no such tensor; and as :func:`project`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["tensor", "step", "in_sample", "rank", "coefficient", "line", "captured"])
    for name in statistics.tensors if names is None else names:
        found = _of(statistics, name, fitted, rank)
        for t, step in enumerate(found.steps):
            for k in range(rank):
                writer.writerow(
                    [
                        name,
                        f"{step:g}",
                        int(t < found.fitted),
                        k + 1,
                        repr(float(found.coefficients[t, k])),
                        repr(float(found.line[t, k])),
                        "" if np.isnan(found.captured[t]) else repr(float(found.captured[t])),
                    ]
                )
    return text.getvalue()


def save_coefficients_plot(
    statistics: SeriesStatistics,
    names: Sequence[str],
    path: Path,
    *,
    fitted: int | None = None,
    rank: int = 1,
) -> None:
    """Draw a panel per tensor: its coefficients against step, in and out of sample, with lines.

    Args:
        statistics: of all checkpoints.
        names: tensors.
        path: the file.
        fitted: how many checkpoints the directions come from; all by default.
        rank: how many directions.

    Raises:
        RelexError: as for :func:`coefficients_csv`, and when matplotlib is missing.
    """
    from relex_merge.report.style import COLOURS, new_figure, save

    projections = {name: _of(statistics, name, fitted, rank) for name in names}
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    figure = new_figure(3.6 * columns, 2.6 * rows)
    for i, (name, found) in enumerate(projections.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        inside = slice(0, found.fitted)
        for k in range(rank):
            colour = COLOURS[k % len(COLOURS)]
            c = found.coefficients[:, k]
            axes.plot(found.steps, found.line[:, k], color=colour, lw=1)
            axes.plot(found.steps[inside], c[inside], "o", ms=3, color=colour, label=f"c{k + 1}")
            axes.plot(
                found.steps[found.fitted :], c[found.fitted :], "o", ms=3, mfc="none", color=colour
            )
        if found.fitted < len(found.steps):
            axes.axvline(found.steps[found.fitted - 1], color="0.6", lw=0.8, ls=":")
        axes.set_title(name, fontsize=8, parse_math=False)
        axes.set_xlabel("step")
        axes.set_ylabel("coefficient")
        axes.legend(fontsize=7, frameon=False)
    save(figure, path)


def _of(statistics: SeriesStatistics, name: str, fitted: int | None, rank: int) -> Projection:
    tensor: TensorStatistics | None = statistics.tensors.get(name)
    if tensor is None:
        some = ", ".join(list(statistics.tensors)[:5])
        raise RelexError(f"no tensor {name!r} in these statistics; there are {some}, …")
    steps = statistics.steps
    return project(tensor.gram, steps, fitted=fitted or len(steps), rank=rank)
