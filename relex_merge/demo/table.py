"""The demo's result, and the table that shows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from relex_merge.demo.evaluate import Accuracy
from relex_merge.report.contents import MEASURES, Report

Curve: TypeAlias = list[tuple[int, Accuracy]]  # (step, accuracy there), ascending


@dataclass(frozen=True)
class Row:
    """One model of the table.

    Attributes:
        name: what it is.
        step: of the run, real or extrapolated.
        accuracy: on the problems held out.
        rollouts: answers that were sampled and verified to get it.
        ratio: how many times more the real run spends to come to ``step``; None for the base.
    """

    name: str
    step: int
    accuracy: Accuracy
    rollouts: int
    ratio: float | None


@dataclass(frozen=True)
class DemoResult:
    """What a demo showed.

    Attributes:
        out: the demo's folder.
        rows: the table.
        curves: "observed", "extrapolated" and, with ``full``, "real".
        report: the trust report, made before anything was extrapolated.
    """

    out: Path
    rows: tuple[Row, ...]
    curves: dict[str, Curve]
    report: Report

    def row(self, name: str) -> Row:
        """Return the row of that name."""
        return next(row for row in self.rows if row.name == name)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of results.json."""
        summary = self.report["summary"]
        return {
            "rows": [
                {
                    "name": row.name,
                    "step": row.step,
                    "rollouts": row.rollouts,
                    "ratio": row.ratio,
                    **_figures(row.accuracy),
                }
                for row in self.rows
            ],
            "curves": {
                name: [{"step": step, **_figures(accuracy)} for step, accuracy in curve]
                for name, curve in self.curves.items()
            },
            "verdict": self.report["verdict"],
            "summary": {measure: summary[measure]["model"] for measure in MEASURES},
        }


def _figures(accuracy: Accuracy) -> dict[str, float]:
    return {
        "greedy": accuracy.greedy,
        "greedy_error": accuracy.greedy_error,
        "sampled": accuracy.sampled,
        "sampled_error": accuracy.sampled_error,
    }


def render(rows: tuple[Row, ...]) -> str:
    """Write the table: accuracies with their standard errors, rollouts, and what was saved."""
    lines = [f"{'':22}{'step':>6}  {'greedy':>13}  {'sampled':>13}  {'rollouts':>8}  {'fewer':>6}"]
    for row in rows:
        a = row.accuracy
        fewer = "" if row.ratio is None else f"{row.ratio:.1f}×"
        lines.append(
            f"{row.name:22}{row.step:>6}  {a.greedy:.3f} ± {a.greedy_error:.3f}  "
            f"{a.sampled:.3f} ± {a.sampled_error:.3f}  {row.rollouts:>8,}  {fewer:>6}".rstrip()
        )
    return "\n".join(lines)
