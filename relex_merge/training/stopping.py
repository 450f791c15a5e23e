"""When a run has been watched for long enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias

from relex_merge.errors import RelexError


@dataclass(frozen=True)
class Figures:
    """What is known of the trajectory at a checkpoint, of the whole model; None: not defined yet.

    step: of the checkpoint; checkpoints: T. The other fields are those of the trust report;
    backtest_skill is that at the ratio which is asked for, target / step.
    """

    step: float
    checkpoints: int
    explained_variance: float | None
    r2: float | None
    straightness: float | None
    backtest_skill: float | None
    verdict: str

    def logs(self) -> dict[str, float]:
        """What goes to the trainer's log: the defined numbers, under ``relex/``."""
        numbers = {k: v for k, v in asdict(self).items() if k not in ("step", "verdict")}
        return {f"relex/{key}": value for key, value in numbers.items() if value is not None}


# Called with the figures of every checkpoint so far, in their order.
StopRule: TypeAlias = Callable[[Sequence[Figures]], bool]


@dataclass(frozen=True)
class StopWhen:
    """Stop when the same-ratio backtest has been good at several checkpoints in a row.

    skill: the least that counts as good; 0 is as good as standing still, 1 is perfect.
    checkpoints: how many in a row. Raises RelexError for values that can never be met.
    """

    skill: float = 0.2
    checkpoints: int = 3

    def __post_init__(self) -> None:
        if not self.skill < 1:
            raise RelexError(f"StopWhen: skill is {self.skill}; no backtest reaches 1, give less")
        if self.checkpoints < 1:
            raise RelexError(f"StopWhen: checkpoints is {self.checkpoints}; give at least 1")

    def __call__(self, history: Sequence[Figures]) -> bool:
        """Whether the last ``checkpoints`` figures are good."""
        last = history[-self.checkpoints :]
        good = [f.backtest_skill is not None and f.backtest_skill >= self.skill for f in last]
        return len(good) == self.checkpoints and all(good)
