"""What discovery finds: checkpoints, the series they make up, and why it was this one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from relex_merge.errors import RelexError

Kind: TypeAlias = Literal["model", "adapter"]


class NothingFoundError(RelexError):
    """No checkpoint at all: the message says what was looked for and what is there."""


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint of a series. What was not looked up is None.

    Attributes:
        step: of the run.
        reference: as a recipe names it, an absolute folder or a Hub reference.
        layout: of the series that it is part of.
        sha: the Hub commit, None for a folder.
        size: bytes of weights.
        dtype: of most of its numbers, as safetensors spells it (BF16).
        date: when it was saved, ISO 8601, UTC.
        kind: a whole model or a LoRA adapter.
    """

    step: int
    reference: str
    layout: str
    sha: str | None = None
    size: int | None = None
    dtype: str | None = None
    date: str | None = None
    kind: Kind = "model"


@dataclass(frozen=True)
class Base:
    """The model that a run started from.

    Attributes:
        reference: a folder or a Hub reference.
        found_in: where that is written down; None where the user said so.
    """

    reference: str
    found_in: str | None = None


@dataclass(frozen=True)
class Series:
    """The checkpoints of one run.

    Attributes:
        source: the folder or the Hub repo.
        layout: how the checkpoints are kept there: transformers, verl, openrlhf, plain, fsdp, dcp,
            branches, tags, commits or subfolders.
        checkpoints: ascending by step, no step twice.
        base: what is proposed as base, None where nothing says it.
        last_step: where the run ended or was to end.
        notes: gaps, duplicates, what else is there and why this was taken.
    """

    source: str
    layout: str
    checkpoints: tuple[Checkpoint, ...]
    base: Base | None
    last_step: int
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> list[int]:
        """The steps, ascending."""
        return [checkpoint.step for checkpoint in self.checkpoints]

    def noting(self, *notes: str) -> Series:
        """Return the same series with more notes."""
        return replace(self, notes=(*self.notes, *notes))


def end_of_run(last: int, states: Iterable[Mapping[str, object]]) -> int:
    """Return where a run ended or was to end.

    Args:
        last: the last step seen.
        states: what the trainer wrote down (``trainer_state.json``), which may name a later one.
    """
    said = [state.get(key) for state in states for key in ("max_steps", "global_step")]
    return max([last, *(step for step in said if type(step) is int)])
