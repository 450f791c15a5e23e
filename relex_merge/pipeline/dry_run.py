"""What a run will read, hold and write, told before a byte of weights is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from relex_merge.engine.resources import Resources
from relex_merge.pipeline.model_output import shards_of
from relex_merge.pipeline.prepare import Prepared, schedule, scratch_bytes

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
    whence = "the Hub" if any(snapshot.streamed for snapshot in prepared.snapshots) else "the disk"
    if cached:
        whence += ", all of it downloaded to the cache first" * (whence == "the Hub")
        here = tuple(replace(snapshot, streamed=False) for snapshot in prepared.snapshots)
        prepared = replace(prepared, snapshots=here)
    pieces = schedule(prepared, range(len(plan.tensors)), resources, gram=not reused)
    shards = shards_of(plan, options.out_shard_size)
    scratch = scratch_bytes(prepared, pieces)
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


def table(rows: Mapping[str, str]) -> str:
    """A line for each name and its text."""
    width = max(len(name) for name in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows.items())


def size(nbytes: int) -> str:
    """Bytes as people read them, in powers of 1000: 5.6 GB."""
    value, units = float(nbytes), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}"
