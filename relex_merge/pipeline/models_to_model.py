"""Full checkpoints in, a full model out."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relex_merge.engine import plan
from relex_merge.engine.engine import Collected, Progress, run_engine, schedule_for
from relex_merge.engine.factors import adapters_of
from relex_merge.engine.resources import Resources
from relex_merge.engine.spill import scratch_bytes, spilling
from relex_merge.errors import RelexError
from relex_merge.pipeline import companions
from relex_merge.pipeline.model_output import ModelOutput, shards_of
from relex_merge.pipeline.prepare import Prepared
from relex_merge.pipeline.staging import Staging
from relex_merge.trajectory.statistics import SeriesStatistics
from relex_merge.weights.files import SourceChangedError

if TYPE_CHECKING:
    from mergekit.options import MergeOptions


def compute(
    prepared: Prepared,
    stage: Staging,
    folders: Sequence[Path],
    resources: Resources,
    options: MergeOptions,
    progress: Progress,
    known: SeriesStatistics | None = None,
) -> SeriesStatistics:
    """Write the weights of every target into its folder; go on where an earlier run was stopped.

    known: statistics of an earlier pass over the same weights, so that one pass is enough.
    """
    shards = shards_of(prepared.plan, options.out_shard_size)
    stage.begin(_key(prepared, options))
    output = ModelOutput(prepared.plan, stage, folders, shards)
    pieces = schedule_for(prepared.plan, output.unfinished(), resources, gram=known is None)
    left = sum(shard.size for i, shard in enumerate(shards) if i not in stage.finished)
    _check_room(stage, left * len(folders) + scratch_bytes(prepared.plan, pieces))
    try:
        with spilling(prepared.plan, pieces, stage.folder / "scratch") as made:
            run_engine(made, pieces, output, resources, progress, known)
    except SourceChangedError:
        stage.finished.clear()  # shards from two states of a checkpoint are not worth keeping
        raise
    finally:
        output.close()
    return replace(output.complete(), fingerprint=prepared.fingerprint())


def _check_room(stage: Staging, needed: int) -> None:
    free = shutil.disk_usage(stage.folder).free
    if free < needed:
        raise RelexError(
            f"{stage.out}: the run writes {needed:,} bytes and the disk has {free:,} free; free "
            "some room or choose another place for OUT"
        )


def examine(prepared: Prepared, resources: Resources, progress: Progress) -> SeriesStatistics:
    """Only form the Gram matrices, of every checkpoint that was prepared."""
    found = Collected()
    everything = range(len(prepared.plan.tensors))
    pieces = schedule_for(prepared.plan, everything, resources, combine=False)
    run_engine(prepared.plan, pieces, found, resources, progress, None)
    names = [tensor.name for tensor in prepared.plan.tensors]
    tensors = {names[i]: found.statistics[i] for i in everything if i in found.statistics}
    return SeriesStatistics(prepared.plan.steps, tensors, prepared.fingerprint())


def _key(prepared: Prepared, options: MergeOptions) -> dict[str, Any]:
    """What must be the same for finished shards to be part of this run's result."""
    return {
        "version": version("relex-merge"),
        "recipe": prepared.recipe.to_yaml(),
        "targets": prepared.targets,
        "sources": prepared.fingerprint(),
        "shard_size": options.out_shard_size,
        "device": str(options.device),
    }


def add_companions(prepared: Prepared, folder: Path, options: MergeOptions) -> None:
    """Configuration, tokenizer, chat template and generation config of a target's folder."""
    base, last = prepared.snapshots[0], prepared.snapshots[-1]
    companions.write_config(prepared.config, folder, output_dtype(prepared.plan))
    tagalong = prepared.architecture.tagalong_files or ()
    donors = [last.folder, base.folder] if options.copy_tokenizer else []
    companions.copy_companions(donors, folder, tagalong)


def output_dtype(made: plan.ModelPlan) -> str:
    """The dtype that most of the output's numbers have, as transformers spells it."""
    numbers: Counter[str] = Counter()
    for tensor in made.tensors:
        if tensor.predictors is not None:
            numbers[str(tensor.out.dtype).removeprefix("torch.")] += tensor.out.numel
    return numbers.most_common(1)[0][0] if numbers else "float32"


def stored_dtype(made: plan.ModelPlan) -> str:
    """The dtype in which the last checkpoint stores most of its numbers."""
    numbers: Counter[str] = Counter()
    for adapter in adapters_of(made)[-1:]:
        for info in adapter.source.tensors.values():
            numbers[str(info.dtype).removeprefix("torch.")] += info.numel
        return numbers.most_common(1)[0][0]
    for tensor in made.tensors:
        info = made.sources[-1].tensors[tensor.stored[-1]]
        numbers[str(info.dtype).removeprefix("torch.")] += info.numel
    return numbers.most_common(1)[0][0]
