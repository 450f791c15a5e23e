"""What a run is told besides its recipe and OUT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from relex_merge.recipe.variant import Variant

if TYPE_CHECKING:
    from mergekit.options import MergeOptions

    from relex_merge.pipeline.given_evaluation import GivenEvaluation

Notify: TypeAlias = Callable[[str], None]


def keep_silent(message: str) -> None:
    """Drop a remark, for callers who want none."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The arguments of :func:`relex_merge.extrapolate`, made concrete.

    Attributes:
        merge: mergekit's own options.
        variants: what is made, one output each.
        memory_budget: bytes that the engine may allocate; None leaves it to the engine.
        stream: whether weights on the Hub and in places are read in ranges (True) or through the
            cache (False); None reads in ranges what is not in the cache.
        evaluation: what models of the series can do, measured before; None without one.
        reuse: an earlier output, or a file of Gram matrices, that spares one pass.
        sample: how large a sample the weight vectors come from, as :func:`plan_sample` takes it;
            None for exact Gram matrices.
        form: "adapter" or "model"; None writes what the checkpoints are.
        lora_rank: rank of an adapter; None takes the series' own, or 32.
        figure: whether the report is drawn for the model card.
        quiet: whether progress bars are hidden.
        anyway: whether the last checkpoint is written where ``auto`` says to stop.
        notify: called with remarks for the user.
    """

    merge: MergeOptions
    variants: tuple[Variant, ...] = (Variant(),)
    memory_budget: int | None = None
    stream: bool | None = None
    evaluation: GivenEvaluation | None = None
    reuse: Path | None = None
    sample: str | None = None
    form: str | None = None
    lora_rank: int | None = None
    figure: bool = False
    quiet: bool = False
    anyway: bool = False
    notify: Notify = keep_silent
