"""What a run will read, hold and write, told before a byte of weights is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from relex_merge.engine.engine import schedule_for
from relex_merge.engine.factors import adapters_of, factor_bytes, split, stack_bytes
from relex_merge.engine.resources import Resources
from relex_merge.engine.spill import scratch_bytes
from relex_merge.formatting import size, table
from relex_merge.pipeline.model_output import shards_of
from relex_merge.pipeline.output_form import Form, adapter_output_bytes
from relex_merge.pipeline.prepare import Prepared

if TYPE_CHECKING:
    from mergekit.options import MergeOptions


def describe(
    prepared: Prepared,
    resources: Resources,
    out: Path,
    options: MergeOptions,
    *,
    reused: bool,
    cached: bool = False,
) -> str:
    """A table in plain text.

    reused: the Gram matrices are known already; cached: what comes from the Hub will be downloaded
    to its cache first.
    """
    plan = prepared.plan
    whence = "the Hub" if any(source.remote for source in plan.sources) else "the disk"
    if cached:
        whence += ", all of it downloaded to the cache first" * (whence == "the Hub")
    pieces = schedule_for(
        plan,
        range(len(plan.tensors)),
        resources,
        gram=not reused,
        remote=False if cached else None,
    )
    shards = shards_of(plan, options.out_shard_size)
    scratch = 0 if cached else scratch_bytes(plan, pieces)
    twice = f"1, and a second one for {len(pieces.twice)} tensors" if pieces.twice else "1"
    once = sum(plan.stored_bytes(i) for i in range(len(plan.tensors)))
    read = once if scratch else pieces.read_bytes
    steps = ", ".join(f"{step:g}" for step in plan.steps)
    rows = {
        "base": prepared.snapshots[0].reference,
        "checkpoints": f"{plan.T} at steps {steps}",
        "tensors": f"{len(plan.tensors)}",
        "to read": f"{size(read)} from {whence}",
        "passes": twice,
        "peak memory": f"{size(pieces.buffers * pieces.buffer_bytes)} of buffers",
        "scratch disk": size(scratch),
        "output": f"{size(plan.targets * sum(s.size for s in shards))} in {out}",
    }
    return table(rows)


def describe_adapters(
    prepared: Prepared, form: Form, resources: Resources, out: Path, options: MergeOptions
) -> str:
    """A table in plain text."""
    plan = prepared.plan
    adapters = adapters_of(plan)
    factored, whole = split(plan, adapters)
    names = [plan.tensors[i].stored[0] for i in factored]
    engine = whole if adapters else list(range(len(plan.tensors)))
    pieces = schedule_for(plan, engine, resources)
    read = sum(factor_bytes(adapters, name) for name in names) + pieces.read_bytes
    held = pieces.buffers * pieces.buffer_bytes + (resources.workers + 1) * max(
        (stack_bytes(adapters, name) for name in names), default=0
    )
    if form.adapter:
        written = adapter_output_bytes(prepared, form, options)
    else:
        written = sum(shard.size for shard in shards_of(plan, options.out_shard_size))
        read += sum(info.nbytes for info in plan.sources[0].tensors.values()) * (plan.targets + 1)
    whence = "the Hub" if any(s.streamed for s in prepared.snapshots) else "the disk"
    kind = "adapters" if adapters else "checkpoints"
    return table(
        {
            "base": prepared.snapshots[0].reference,
            kind: f"{plan.T} at steps {', '.join(f'{step:g}' for step in plan.steps)}",
            "weights": f"{len(factored) + len(engine)}",
            "to read": f"{size(read)} from {whence}",
            "peak memory": f"{size(held)} of factors and buffers",
            "scratch disk": size(0),
            "output": f"{size(plan.targets * written)} in {out}"
            f" ({'an adapter' if form.adapter else 'a model'} for each target)",
        }
    )
