"""Which of the four writers makes the output: a model or an adapter, from checkpoints of either."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relex_merge.engine.factors import adapters_of
from relex_merge.errors import RelexError
from relex_merge.pipeline import (
    adapters_to_adapter,
    adapters_to_model,
    models_to_adapter,
    models_to_model,
)

if TYPE_CHECKING:
    from relex_merge.pipeline.options import RunOptions
    from relex_merge.pipeline.prepare import Prepared
    from relex_merge.pipeline.writing import Writer

FORMS = ("adapter", "model")


def writer_for(prepared: Prepared, options: RunOptions) -> Writer:
    """Return the writer of the form asked for, by default that of the checkpoints.

    Raises:
        RelexError: there is no such form, or ``--lora-rank`` does not go with it.
    """
    form, rank = options.form, options.lora_rank
    if form not in (None, *FORMS):
        raise RelexError(f"an output is written as {' or '.join(FORMS)}, not as {form!r}")
    adapters = bool(adapters_of(prepared.plan))
    adapter = adapters if form is None else form == "adapter"
    if rank is not None and not adapter:
        raise RelexError("--lora-rank is for an adapter; add --as adapter")
    if rank is not None and rank < 1:
        raise RelexError(f"--lora-rank is {rank}; it must be at least 1")
    if adapter:
        return adapters_to_adapter if adapters else models_to_adapter
    return adapters_to_model if adapters else models_to_model
