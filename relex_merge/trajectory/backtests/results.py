"""What backtests lead to, as plain values: evidence and verdict, candidates and choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from relex_merge.trajectory.backtests.entries import (
    ChoiceCandidate,
    ChoiceEntry,
    ModelFigures,
    WalkFigures,
    json_number,
)
from relex_merge.trajectory.backtests.error_law import ErrorLaw
from relex_merge.trajectory.backtests.rounding import Rounding
from relex_merge.trajectory.predictors.history import FEWEST_FITTED

STAY = "stay"

# What a verdict can be, of weights and of all stronger evidence.
Word: TypeAlias = Literal[
    "extrapolate",
    "caution",
    "do not extrapolate",
    "not enough checkpoints to tell",
    "weights cannot tell",
    "sample too small to tell",
    "nothing to extrapolate",
]


@dataclass(frozen=True)
class Evidence:
    """What is known about one model's trajectory before extrapolating.

    Attributes:
        target: Step asked for.
        last_step: Step of the last observed checkpoint.
        ratio: target / last_step; None where nothing is extrapolated.
        checkpoints: T.
        cut: How many of them lie before s_T / ratio.
        law: The backtests together; None when there are too few.
        figures: The report's whole-model entry.
        walk: The same of a random walk.
        dtype: Of the files.
        held_out: (step, true skill) of checkpoints beyond the window.
        predictor: The one that this is about.
        steps: (T,) ascending.
        distances: (T,) ‖δ_t‖ of the whole model.
        path: ‖θ_T − θ_1‖ of the whole model.
        rounding: What a straight run would look like in such files; None where rounding to 16 bits
            plays no part or cannot be estimated.
    """

    target: float
    last_step: float
    ratio: float | None
    checkpoints: int
    cut: int
    law: ErrorLaw | None
    figures: ModelFigures
    walk: WalkFigures
    dtype: str
    held_out: Sequence[tuple[float, float | None]] = ()
    predictor: str = "linear"
    steps: Sequence[float] = ()
    distances: Sequence[float] = ()
    path: float = 0.0
    rounding: Rounding | None = None

    @property
    def same_ratio(self) -> float | None:
        """Skill of the backtest at the user's own ratio; None where none counts."""
        return self.figures["backtest_skill"] if self.cut >= FEWEST_FITTED else None


@dataclass(frozen=True)
class Verdict:
    """May this trajectory be extrapolated this far?

    Attributes:
        verdict: The word.
        reasons: Sentences, the weightiest first.
        supported_target: The furthest step whose expected skill is clearly positive and whose ratio
            was backtested; None where there is none.
    """

    verdict: Word
    reasons: list[str]
    supported_target: float | None


@dataclass(frozen=True)
class Backtest:
    """A backtest as evidence: fitted up to step ``cut``, predicting ``step``; its skill."""

    cut: float
    step: float
    skill: float


@dataclass(frozen=True)
class Candidate:
    """What speaks for a predictor at the target.

    Attributes:
        name: Of the predictor.
        expected: Skill by all backtests together; None where none of them tells.
        low: One standard deviation to the worse.
        high: One to the better.
        same_ratio: Skill of the backtest at the target's own ratio; None where none reaches it.
        trials: Backtests of about that ratio, at several cuts.
    """

    name: str
    expected: float | None
    low: float | None
    high: float | None
    same_ratio: float | None
    trials: tuple[Backtest, ...]

    @property
    def skill(self) -> float | None:
        """The worse of the two witnesses."""
        known = [s for s in (self.expected, self.same_ratio) if s is not None]
        return min(known) if self.expected is not None else None


@dataclass(frozen=True)
class Group:
    """The choice for some tensors.

    Attributes:
        name: The predictor.
        reasons: Sentences.
        candidates: What it was chosen from.
    """

    name: str
    reasons: tuple[str, ...]
    candidates: tuple[Candidate, ...]


class Horizon(NamedTuple):
    """The predictor that would be chosen for ``step``, its expected skill and the low end of it."""

    step: float
    predictor: str
    low: float
    expected: float


@dataclass(frozen=True)
class Choice:
    """The predictor and the target that were chosen.

    Attributes:
        name: The predictor of most tensors that go on.
        target: The step; the last observed one where all are to stay there.
        scope: For what a choice was made: "model", "module" or "tensor".
        groups: Label → choice; "model", a kind of module, or a tensor, by ``scope``.
        names: Tensor → predictor.
        curve: Skill against horizon, where the target was chosen too.
    """

    name: str
    target: float
    scope: str
    groups: Mapping[str, Group]
    names: Mapping[str, str]
    curve: tuple[Horizon, ...] = ()

    @property
    def stops(self) -> bool:
        """Whether the answer is the last observed checkpoint."""
        return set(self.names.values()) == {STAY}

    @property
    def reasons(self) -> tuple[str, ...]:
        """Those of the first group that was given this choice's name."""
        return next(group.reasons for group in self.groups.values() if group.name == self.name)

    def as_json(self) -> ChoiceEntry:
        """Return the entry "choice" of relex_report.json."""
        return {
            "predictor": self.name,
            "scope": self.scope,
            "target_step": self.target,
            "stops": self.stops,
            "reasons": list(self.reasons),
            "groups": {
                label: {
                    "predictor": group.name,
                    "candidates": {c.name: _plain(c) for c in group.candidates},
                }
                for label, group in self.groups.items()
            },
            "curve": [
                [step, name, json_number(low), json_number(expected)]
                for step, name, low, expected in self.curve
            ],
        }


def _plain(candidate: Candidate) -> ChoiceCandidate:
    return {
        "expected": json_number(candidate.expected),
        "low": json_number(candidate.low),
        "high": json_number(candidate.high),
        "same_ratio": json_number(candidate.same_ratio),
        "trials": [
            {"cut": trial.cut, "step": trial.step, "skill": json_number(trial.skill)}
            for trial in candidate.trials
        ],
    }
