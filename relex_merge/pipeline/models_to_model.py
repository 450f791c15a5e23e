"""Full checkpoints in, a full model out."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from relex_merge.engine.engine import run_engine, schedule_for
from relex_merge.engine.spill import scratch_bytes, spilling
from relex_merge.errors import RelexError
from relex_merge.pipeline.companions import complete_model
from relex_merge.pipeline.model_output import ModelOutput, shards_of
from relex_merge.pipeline.writing import Written
from relex_merge.weights.files import SourceChangedError

if TYPE_CHECKING:
    from relex_merge.pipeline.options import RunOptions
    from relex_merge.pipeline.prepare import Prepared
    from relex_merge.pipeline.staging import Staging
    from relex_merge.pipeline.writing import Job
    from relex_merge.trajectory.statistics import SeriesStatistics


def write(job: Job) -> Written:
    """Write every target's model; go on where an earlier run was stopped."""
    statistics = write_weights(job)
    complete_model(job.prepared, job.folders, job.options.merge)
    return Written(statistics)


def output_bytes(prepared: Prepared, options: RunOptions) -> int:
    """Return the bytes of one target's weights."""
    return sum(shard.size for shard in shards_of(prepared.plan, options.merge.out_shard_size))


def write_weights(job: Job) -> SeriesStatistics:
    """Write the shards of every target that are not finished; return the statistics of all."""
    plan = job.prepared.plan
    shards = shards_of(plan, job.options.merge.out_shard_size)
    job.stage.begin(_key(job))
    output = ModelOutput(plan, job.stage, job.folders, shards)
    pieces = schedule_for(plan, output.unfinished(), job.resources, gram=job.known is None)
    left = sum(shard.size for i, shard in enumerate(shards) if i not in job.stage.finished)
    _check_room(job.stage, left * len(job.folders) + scratch_bytes(plan, pieces))
    try:
        with spilling(plan, pieces, job.stage.folder / "scratch") as made:
            run_engine(made, pieces, output, job.resources, job.progress, job.known)
    except SourceChangedError:
        job.stage.forget()  # shards from two states of a checkpoint are not worth keeping
        raise
    finally:
        output.close()
    sampled = job.known is not None and job.known.sampled
    fingerprint = job.prepared.fingerprint()
    return replace(output.complete(), fingerprint=fingerprint, sampled=sampled)


def _check_room(stage: Staging, needed: int) -> None:
    free = shutil.disk_usage(stage.folder).free
    if free < needed:
        raise RelexError(
            f"{stage.out}: the run writes {needed:,} bytes and the disk has {free:,} free; free "
            "some room or choose another place for OUT"
        )


def _key(job: Job) -> dict[str, Any]:
    """Return what must be the same for finished shards to be part of this run's result."""
    merge = job.options.merge
    sampled = {} if job.options.sample is None else {"sample": job.options.sample}
    return {
        **sampled,
        "version": version("relex-merge"),
        "recipe": job.prepared.recipe.to_yaml(),
        "variants": [[v.target_step, v.scale] for v in job.prepared.variants],
        "sources": job.prepared.fingerprint(),
        "shard_size": merge.out_shard_size,
        "device": str(merge.device),
    }
