"""What the functional figures say about one extrapolation, before any label is looked at.

The thresholds were set on miniature RLVR runs of seeds 51 and 52 and checked on other seeds
(``tests/benchmarks/calibrate_evaluation.py``); they stand here and nowhere else, so that a
calibration can change them in one place. There, with the backtest's skill positive, every candidate
nearer than ``SAFE`` was a gain; between ``SAFE`` and ``TRUST_REGION`` two of three were, the others
being small losses of models that had learnt nearly all there was, which only labels can tell; and
beyond ``TRUST_REGION`` most were losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from relex_merge.report.estimate import Estimate

SKILL = 0.0  # a functional backtest must be better than standing still
SAFE = 0.1  # KL(last ‖ predicted) in nats a token: nearer, a good backtest is enough
TRUST_REGION = 0.5  # the same: further, nothing that a backtest says is enough
CLEAR = 1.0  # standard errors by which a figure must pass its threshold to be clear about it
SAME_RATIO = 1.05  # a backtest at a ratio up to this factor smaller counts as one at that ratio

Says: TypeAlias = Literal["for", "against", "unclear"]


@dataclass(frozen=True)
class Backtest:
    """A functional backtest.

    ratio: s_T / s_h. skill: 1 − KL(p_T ‖ p_predicted) / KL(p_T ‖ p_h), None where it is undefined.
    """

    ratio: float
    skill: Estimate | None


@dataclass(frozen=True)
class Function:
    """The functional figures of one candidate.

    kl: KL(last ‖ candidate) in nats a token. ratio: target step over the last observed step.
    skill: of the backtest at that ratio, None where there is none.
    """

    kl: Estimate
    ratio: float
    skill: Estimate | None

    @property
    def place(self) -> str:
        """Say in words where the KL lies."""
        if self.kl.value < SAFE:
            return f"near it: below {SAFE:g}"
        if self.kl.value < TRUST_REGION:
            return f"from {SAFE:g} on only labels tell gains from losses"
        return f"outside the trust region of {TRUST_REGION:g}"

    @property
    def supports(self) -> bool:
        """The rule on the figures as they are: skill > SKILL and KL < SAFE."""
        return self.skill is not None and self.skill.value > SKILL and self.kl.value < SAFE

    @property
    def says(self) -> Says:
        """What the rule says where its figures pass or fail by CLEAR standard errors.

        A skill that is clearly negative or a KL clearly beyond TRUST_REGION is against; without a
        backtest nothing is for, and from SAFE on it takes labels.
        """
        inside = _margin(TRUST_REGION - self.kl.value, self.kl)
        near = _margin(SAFE - self.kl.value, self.kl)
        skilled = None if self.skill is None else _margin(self.skill.value - SKILL, self.skill)
        if inside < -CLEAR or (skilled is not None and skilled < -CLEAR):
            return "against"
        if skilled is None or not (near > CLEAR and skilled > CLEAR):
            return "unclear"
        return "for"


def _margin(distance: float, figure: Estimate) -> float:
    """Return the distance in standard errors; without one the sign alone, as if it were clear."""
    if not figure.stderr:
        return distance * float("inf") if distance else 0.0
    return distance / figure.stderr


def skill_at(backtests: Sequence[Backtest], ratio: float) -> Estimate | None:
    """Return the skill of the backtest that speaks about a ratio.

    That is the one with the smallest ratio that is not smaller (by more than SAME_RATIO): what
    was predicted well over a longer way is believed over a shorter one, never the other way round.

    Args:
        backtests: in any order.
        ratio: target step over the last observed step.
    """
    reaching = [test for test in backtests if test.ratio * SAME_RATIO >= ratio]
    return min(reaching, key=lambda test: test.ratio).skill if reaching else None
