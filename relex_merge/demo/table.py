"""The demo's result, and the table that shows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from relex_merge.demo.evaluate import Accuracy
from relex_merge.report.contents import MEASURES, Report

if TYPE_CHECKING:
    from relex_merge.demo.functional import Measured
    from relex_merge.report.evaluation import Evaluation

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
        kl: from the last observed checkpoint, nats a token; None where it was not measured.
        note: what else is to be said of it.
    """

    name: str
    step: int
    accuracy: Accuracy
    rollouts: int
    ratio: float | None
    kl: float | None = None
    note: str = ""


@dataclass(frozen=True)
class DemoResult:
    """What a demo showed.

    Attributes:
        out: the demo's folder.
        rows: the table.
        curves: "observed", "extrapolated", "two-point", "auto" and, unless ``quick``, "real".
        report: the trust report, made before anything was extrapolated.
        evaluation: of the recipe, by text, made before anything was extrapolated too.
        measured: the choice among candidates by labels.
    """

    out: Path
    rows: tuple[Row, ...]
    curves: dict[str, Curve]
    report: Report
    evaluation: Evaluation
    measured: Measured

    def row(self, name: str) -> Row:
        """Return the row of that name."""
        return next(row for row in self.rows if row.name == name)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of results.json."""
        summary, chosen = self.report["summary"], self.measured.candidate
        return {
            "rows": [
                {
                    "name": row.name,
                    "step": row.step,
                    "rollouts": row.rollouts,
                    "ratio": row.ratio,
                    "kl": row.kl,
                    **_figures(row.accuracy),
                }
                for row in self.rows
            ],
            "curves": {
                name: [{"step": step, **_figures(accuracy)} for step, accuracy in curve]
                for name, curve in self.curves.items()
            },
            "verdict": self.report["verdict"],
            "evaluation": {
                "verdict": self.evaluation["verdict"],
                "function": self.evaluation["function"],
            },
            "measured_choice": {
                "model": self.measured.name,
                "scale": 0.0 if chosen is None else chosen.scale,
                "anchor": "last" if chosen is None else chosen.anchor,
                "reasons": list(self.measured.reasons),
                "choosing": self.measured.choosing,
                "reported": self.measured.accuracy.problems,
            },
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
    """Write the table: accuracies with their errors, rollouts, what was saved, how far it went."""
    lines = [
        f"{'':16}{'step':>6}  {'greedy':>13}  {'sampled':>13}  {'rollouts':>8}  {'fewer':>6}  "
        f"{'KL':>7}"
    ]
    for row in rows:
        a = row.accuracy
        fewer = "" if row.ratio is None else f"{row.ratio:.1f}×"
        kl = "" if row.kl is None else f"{row.kl:.2g}"
        lines.append(
            f"{row.name:16}{row.step:>6}  {a.greedy:.3f} ± {a.greedy_error:.3f}  "
            f"{a.sampled:.3f} ± {a.sampled_error:.3f}  {row.rollouts:>8,}  {fewer:>6}  {kl:>7}  "
            f"{row.note}".rstrip()
        )
    return "\n".join(lines)


def compare(result: DemoResult) -> str:
    """Write what weights and text had said, and what came out."""
    said = {s["evidence"]: s["verdict"] for s in result.evaluation["verdict"]["statements"]}
    last, line = result.row("last observed").accuracy, result.row("RELEX").accuracy
    gained = line.greedy >= last.greedy
    outcome = f"a {'gain' if gained else 'loss'}, {last.greedy:.3f} → {line.greedy:.3f}"
    return "\n".join(
        [
            "What was said before, and what came out:",
            f"  weights   {result.report['verdict']['verdict']}",
            f"  text      {said['function'] or 'cannot tell'}",
            f"  RELEX     {outcome}",
        ]
    )
