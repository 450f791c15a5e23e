"""Stopping a training run once its trajectory has been good for long enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import TypeAlias

from relex_merge.errors import RelexError


@dataclass(frozen=True)
class Figures:
    """The figures of the whole model at a checkpoint; None where one is not defined yet.

    Attributes:
        step: of the checkpoint.
        checkpoints: how many there are so far.
        explained_variance: as in the trust report.
        r2: as in the trust report.
        straightness: as in the trust report.
        backtest_skill: at the ratio that the run is to be extrapolated by, target / step.
        verdict: as in the trust report.
        furthest_ratio: the widest that was backtested.
        furthest_skill: of the backtest at that ratio.
    """

    step: float
    checkpoints: int
    explained_variance: float | None
    r2: float | None
    straightness: float | None
    backtest_skill: float | None
    verdict: str
    furthest_ratio: float | None = None
    furthest_skill: float | None = None

    def logs(self) -> dict[str, float]:
        """Return what goes to the trainer's log: the defined numbers, under ``relex/``.

        Most trackers show them under ``train/relex/``, as they do with all names of a trainer.
        """
        numbers = {k: v for k, v in asdict(self).items() if k not in ("step", "verdict")}
        return {f"relex/{key}": value for key, value in numbers.items() if value is not None}


# Called with the figures of every checkpoint so far, in their order.
StopRule: TypeAlias = Callable[[Sequence[Figures]], bool]


@dataclass(frozen=True)
class StopWhen:
    """Stop when the same-ratio backtest has been good at several checkpoints in a row.

    Args:
        skill: the least that counts as good; 0 is as good as standing still, 1 is perfect.
        checkpoints: how many in a row.

    Raises:
        RelexError: a value is no number, or can never be met.
    """

    skill: float = 0.2
    checkpoints: int = 3

    def __post_init__(self) -> None:
        for name, kind in (("skill", Real), ("checkpoints", Integral)):
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, kind):
                what = "a number" if kind is Real else "a whole number"
                raise RelexError(f"StopWhen: {name} is {given!r}; give {what}")
        if not self.skill < 1:
            raise RelexError(f"StopWhen: skill is {self.skill}; no backtest reaches 1, give less")
        if self.checkpoints < 1:
            raise RelexError(f"StopWhen: checkpoints is {self.checkpoints}; give at least 1")

    def __call__(self, history: Sequence[Figures]) -> bool:
        """Tell whether the last ``checkpoints`` figures are good."""
        last = history[-self.checkpoints :]
        good = [f.backtest_skill is not None and f.backtest_skill >= self.skill for f in last]
        return len(good) == self.checkpoints and all(good)
