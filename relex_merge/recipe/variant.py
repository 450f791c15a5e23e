"""One output of a run: what replaces the recipe's own target step and scale."""

from __future__ import annotations

from dataclasses import dataclass

from relex_merge.formatting import whole
from relex_merge.recipe.names import TargetStep


@dataclass(frozen=True)
class Variant:
    """A target step and a scale.

    Attributes:
        target_step: replaces the recipe's; None leaves it.
        scale: λ, replaces the recipe's; None leaves it.
    """

    target_step: TargetStep | None = None
    scale: float | None = None

    @property
    def name(self) -> str:
        """The folder of this output where there are several: ``step-500-scale-0.3``."""
        step = self.target_step
        parts = [] if step is None else [f"step-{step if isinstance(step, str) else whole(step)}"]
        if self.scale is not None:
            parts.append(f"scale-{self.scale:g}")
        return "-".join(parts)
