"""The verdict on one extrapolation from geometry, function and labels, the later outranking.

- **Geometry** (weights) always speaks, cheaply and of the wrong space.
- **Function** (text) outranks it where it can tell: for it when backtest skill and KL clearly pass
  their thresholds, against it when one of them clearly fails; where a backtest was made and the
  figures are too close to a threshold the verdict is ``caution``. Where no backtest was possible
  and the KL is inside the trust region the function cannot tell, and geometry's word stands.
- **Labels** (tasks) outrank both where the 95 % interval of the paired difference from the last
  observed checkpoint leaves out zero; else they cannot tell, and the word before stands.

Weights that cannot tell (16-bit files) say nothing: where function cannot tell either, for want of
a backtest, there are not enough checkpoints to tell.

"Nothing to extrapolate" is about the recipe and not about evidence, so it stands whatever is found.
Thresholds: :mod:`relex_merge.report.functional`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relex_merge.report.difference import Difference
from relex_merge.report.estimate import Estimate
from relex_merge.report.evaluation import Better, Kind
from relex_merge.report.functional import SKILL, Function, Says
from relex_merge.trajectory.backtests.results import Word

CANNOT_SEE: dict[Kind, str] = {
    "geometry": (
        "Weights cannot say what a movement means to the model: rounding noise of 16-bit files is "
        "large in weights and nothing to the function, and a small step in a sensitive direction "
        "can ruin it."
    ),
    "function": (
        "Distributions over next tokens cannot say whether answers are right, and these say "
        "nothing about text of another kind."
    ),
    "labels": "Right answers on these tasks say nothing about other tasks.",
}


@dataclass(frozen=True)
class Geometry:
    """What the trust report concluded from weights. verdict: its word; reasons: its sentences."""

    verdict: Word
    reasons: Sequence[str]


@dataclass(frozen=True)
class Statement:
    """What one kind of evidence says.

    verdict: its own word, None where it cannot tell. says, cannot_see: sentences.
    """

    evidence: Kind
    verdict: Word | None
    says: Sequence[str]
    cannot_see: str


@dataclass(frozen=True)
class FinalVerdict:
    """The verdict that counts.

    evidence: the kind that decided. reasons: its sentences first, then what others found.
    statements: of every kind that there is, the strongest first.
    """

    verdict: Word
    evidence: Kind
    reasons: Sequence[str]
    statements: Sequence[Statement]


def decide(
    geometry: Geometry, function: Function | None = None, labels: Difference | None = None
) -> FinalVerdict:
    """Give the verdict on the extrapolation that the recipe asks for (module text).

    Args:
        geometry: from the trust report.
        function: figures of the recipe's own target at scale 1, None where no text was run.
        labels: its paired difference from the last observed checkpoint on questions that had no
            part in choosing it, None where no task was run.
    """
    blind = geometry.verdict in ("weights cannot tell", "sample too small to tell")
    own = None if blind else geometry.verdict
    statements = [_statement("geometry", own, geometry.reasons)]
    if function is not None:
        statements.insert(0, _statement("function", *_of_function(function)))
    if labels is not None:
        statements.insert(0, _statement("labels", *_of_labels(labels)))
    last: Word = geometry.verdict if function is None else "not enough checkpoints to tell"
    told = ((s.verdict, s.evidence) for s in statements if s.verdict)
    verdict, evidence = next(told, (last, statements[-1].evidence))
    if geometry.verdict == "nothing to extrapolate":
        verdict, evidence = geometry.verdict, statements[-1].evidence
    ordered = sorted(statements, key=lambda s: s.evidence != evidence)
    reasons = [reason for statement in ordered for reason in statement.says]
    return FinalVerdict(verdict, evidence, reasons, statements)


def _statement(evidence: Kind, verdict: Word | None, says: Sequence[str]) -> Statement:
    return Statement(evidence, verdict, says, CANNOT_SEE[evidence])


def _of_function(f: Function) -> tuple[Word | None, list[str]]:
    says = [
        f"On the text the prediction is {f.kl.value:.3g}{_error(f.kl)} nats a token from the last "
        f"observed checkpoint ({f.place})."
    ]
    if f.skill is None:
        says.append(f"No functional backtest is possible at your ratio of {f.ratio:.3g}×.")
        return ("do not extrapolate" if f.says == "against" else None), says
    better = "closer to" if f.skill.value > SKILL else "no closer to"
    says.insert(
        0,
        f"Functional backtest at your ratio of {f.ratio:.3g}×: the prediction of the last observed "
        f"checkpoint is {better} it than standing still (skill {f.skill.value:+.2f}"
        f"{_error(f.skill)}; 1 is perfect, 0 is standing still).",
    )
    words: dict[Says, Word] = {
        "for": "extrapolate",
        "against": "do not extrapolate",
        "unclear": "caution",
    }
    return words[f.says], says


def _of_labels(d: Difference) -> tuple[Word | None, list[str]]:
    words: dict[Better, Word | None] = {
        "yes": "extrapolate",
        "no": "do not extrapolate",
        "cannot be told": None,
    }
    return words[d.better], [d.sentence]


def _error(figure: Estimate) -> str:
    return "" if figure.stderr is None else f" ± {figure.stderr:.2g}"
