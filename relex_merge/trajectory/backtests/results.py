"""What a choice of predictor holds: names, evidence, reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relex_merge.trajectory.backtests.entries import ChoiceCandidate, ChoiceEntry, json_number

STAY = "stay"


@dataclass(frozen=True)
class Trial:
    """A backtest as evidence: fitted up to step ``cut``, predicting ``step``; its skill."""

    cut: float
    step: float
    skill: float


@dataclass(frozen=True)
class Candidate:
    """What speaks for a predictor at the target. expected: skill by all backtests together, likely
    low to high; same_ratio: of the backtest at that ratio, None where none reaches it; trials: of
    about that ratio, at several cut-offs.
    """

    name: str
    expected: float | None
    low: float | None
    high: float | None
    same_ratio: float | None
    trials: tuple[Trial, ...]

    @property
    def skill(self) -> float | None:
        """The worse of the two witnesses."""
        known = [s for s in (self.expected, self.same_ratio) if s is not None]
        return min(known) if self.expected is not None else None


@dataclass(frozen=True)
class Group:
    """The choice for some tensors. name: the predictor; reasons: sentences."""

    name: str
    reasons: tuple[str, ...]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Choice:
    """name: the predictor of most tensors that go on; target: the step, the last observed one where
    all are to stay there; groups: label → choice ("model", a kind of module, or a
    tensor, by ``scope``); names: tensor → predictor. curve: (step, predictor, low, expected) skill
    against horizon, where the target was chosen too.
    """

    name: str
    target: float
    scope: str
    groups: Mapping[str, Group]
    names: Mapping[str, str]
    curve: tuple[tuple[float, str, float, float], ...] = ()

    @property
    def stops(self) -> bool:
        """Whether the answer is the last observed checkpoint."""
        return set(self.names.values()) == {STAY}

    @property
    def reasons(self) -> tuple[str, ...]:
        """Those of the first group that was given this choice's name."""
        return next(group.reasons for group in self.groups.values() if group.name == self.name)

    def as_json(self) -> ChoiceEntry:
        """The entry "choice" of relex_report.json."""
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
