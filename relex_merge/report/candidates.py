"""The models among which an evaluation chooses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from relex_merge.formatting import format_step

LAST = "last observed"
BASE = "base"


@dataclass(frozen=True, order=True)
class Candidate:
    """The model θ_A + λ (θ̂(s*) − θ̂(s_T)).

    target_step: s*. scale: λ. anchor: θ_A; ``line`` is θ̂(s_T), so that scale 1 is the paper's
    method, ``last`` is the last observed checkpoint θ_T, ``average`` the mean of the last ones.
    label: what tells finished outputs apart that are the same in all this.
    """

    target_step: float
    scale: float = 1.0
    anchor: str = "line"
    label: str = ""

    @property
    def name(self) -> str:
        """What tables and messages call it: ``step 1000``, ``step 1000 × 0.3 (anchor last)``."""
        labelled = f" in {self.label}" if self.label else ""
        scaled = "" if self.scale == 1 else f" × {self.scale:g}"
        anchored = "" if self.anchor == "line" else f" (anchor {self.anchor})"
        return f"step {format_step(self.target_step)}{scaled}{anchored}{labelled}"


Model: TypeAlias = Candidate | str  # a candidate, or the name of another model
