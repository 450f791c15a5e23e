"""What the functional figures say about one extrapolation, before any label is looked at.

The thresholds were set on twelve miniature RLVR runs and checked on runs of other seeds; they stand
here and nowhere else, so that a calibration can change them in one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from relex_merge.report.estimate import Estimate

SKILL = 0.0  # a functional backtest must be better than standing still
TRUST_REGION = 0.5  # KL(last ‖ predicted) in nats a token must be below
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
    def supports(self) -> bool:
        """The rule on the figures as they are: skill > SKILL and KL < TRUST_REGION."""
        return self.skill is not None and self.skill.value > SKILL and self.kl.value < TRUST_REGION

    @property
    def says(self) -> Says:
        """What the rule says where its figures pass or fail by CLEAR standard errors.

        One figure that clearly fails is against; without a backtest nothing is for.
        """
        near = _margin(TRUST_REGION - self.kl.value, self.kl)
        skilled = None if self.skill is None else _margin(self.skill.value - SKILL, self.skill)
        if near < -CLEAR or (skilled is not None and skilled < -CLEAR):
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
