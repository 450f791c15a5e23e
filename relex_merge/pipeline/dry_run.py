"""What a run will read, hold and write, told before a byte of weights is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from relex_merge.engine.engine import schedule_for
from relex_merge.engine.factors import adapters_of, factor_bytes, split, stack_bytes
from relex_merge.engine.spill import scratch_bytes
from relex_merge.formatting import size, table
from relex_merge.pipeline import adapters_to_adapter, models_to_adapter, models_to_model
from relex_merge.pipeline.output_form import writer_for
from relex_merge.pipeline.prepare import where_read
from relex_merge.pipeline.sampling import plan_sample

if TYPE_CHECKING:
    from relex_merge.engine.resources import Resources
    from relex_merge.pipeline.options import RunOptions
    from relex_merge.pipeline.prepare import Prepared


def describe(prepared: Prepared, options: RunOptions, resources: Resources, out: Path | str) -> str:
    """Return a table in plain text of what the run reads, holds and writes.

    Raises:
        RelexError: as the run itself would for its form, or for a memory budget that is too small.
    """
    writer = writer_for(prepared, options)
    plan = prepared.plan
    written = f"{size(plan.targets * writer.output_bytes(prepared, options))} in {out}"
    if writer is models_to_model:
        work = _sample(prepared, options)
        work |= _one_series_of_models(prepared, options, resources)
        return table({**_head(prepared), **work, "output": written})
    adapter = writer in (adapters_to_adapter, models_to_adapter)
    work = _factors(prepared, resources, adapter=adapter)
    what = "an adapter" if adapter else "a model"
    return table({**_head(prepared), **work, "output": f"{written} ({what} for each target)"})


def describe_reading(prepared: Prepared) -> str:
    """Return a table in plain text of what is read to form every Gram matrix."""
    plan, adapters = prepared.plan, adapters_of(prepared.plan)
    factored, whole = split(plan, adapters)
    names = [plan.tensors[i].stored[0] for i in factored]
    through_engine = whole if adapters else range(len(plan.tensors))
    read = sum(factor_bytes(adapters, name) for name in names)
    read += sum(plan.stored_bytes(i) for i in through_engine)
    place = where_read(prepared.snapshots)
    return table({**_head(prepared), "to read": f"{size(read)} from {place}, all there is"})


def _head(prepared: Prepared) -> dict[str, str]:
    plan = prepared.plan
    kind = "adapters" if adapters_of(plan) else "checkpoints"
    steps = ", ".join(f"{step:g}" for step in plan.steps)
    return {"base": prepared.snapshots[0].reference, kind: f"{plan.T} at steps {steps}"}


def _sample(prepared: Prepared, options: RunOptions) -> dict[str, str]:
    """Describe the sample that the weight vectors come from, if they do."""
    if options.sample is None:
        return {}
    sampling = plan_sample(prepared, options.sample, options.notify, by_tensor=True)
    if sampling is None:
        return {}
    return {
        "sample": f"{sampling.plan.share:.2%} of the numbers, {size(sampling.cost.traffic)}, before"
    }


def _one_series_of_models(
    prepared: Prepared, options: RunOptions, resources: Resources
) -> dict[str, str]:
    """Describe the reading of full checkpoints into a full model."""
    plan = prepared.plan
    cached = options.stream is False  # what comes from the Hub is downloaded to its cache first
    everything = range(len(plan.tensors))
    pieces = schedule_for(
        plan,
        everything,
        resources,
        gram=options.reuse is None and options.sample is None,
        remote=False if cached else None,
    )
    scratch = 0 if cached else scratch_bytes(plan, pieces)
    once = sum(plan.stored_bytes(i) for i in everything)
    place = where_read(prepared.snapshots)
    if cached and any(source.remote for source in plan.sources):
        place += ", all of it downloaded to the cache first"
    return {
        "tensors": f"{len(plan.tensors)}",
        "to read": f"{size(once if scratch else pieces.read_bytes)} from {place}",
        "passes": f"1, and a second one for {len(pieces.twice)} tensors" if pieces.twice else "1",
        "peak memory": f"{size(pieces.buffers * pieces.buffer_bytes)} of buffers",
        "scratch disk": size(scratch),
    }


def _factors(prepared: Prepared, resources: Resources, *, adapter: bool) -> dict[str, str]:
    """Describe the reading of adapters, or of full checkpoints into an adapter."""
    plan = prepared.plan
    adapters = adapters_of(plan)
    factored, whole = split(plan, adapters)
    names = [plan.tensors[i].stored[0] for i in factored]
    through_engine = whole if adapters else list(range(len(plan.tensors)))
    pieces = schedule_for(plan, through_engine, resources)
    read = sum(factor_bytes(adapters, name) for name in names) + pieces.read_bytes
    held = pieces.buffers * pieces.buffer_bytes + (resources.workers + 1) * max(
        (stack_bytes(adapters, name) for name in names), default=0
    )
    if not adapter:
        read += sum(info.nbytes for info in plan.sources[0].tensors.values()) * (plan.targets + 1)
    return {
        "weights": f"{len(factored) + len(through_engine)}",
        "to read": f"{size(read)} from {where_read(prepared.snapshots)}",
        "peak memory": f"{size(held)} of factors and buffers",
        "scratch disk": size(0),
    }
