"""A run from recipe to finished folder: prepare, compute, finish."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relex_merge import companions, plan, series
from relex_merge.architecture import architecture_of, read_config
from relex_merge.engine import Engine
from relex_merge.errors import RelexError
from relex_merge.output import ModelOutput, shards_of
from relex_merge.recipe import Recipe
from relex_merge.resources import Resources
from relex_merge.schedule import Schedule, make_schedule
from relex_merge.sources import Source, open_folder
from relex_merge.staging import Staging
from relex_merge.statistics import SeriesStatistics

if TYPE_CHECKING:
    from mergekit.architecture import ModelArchitecture
    from mergekit.options import MergeOptions


@dataclass(frozen=True)
class Prepared:
    """Everything known before a byte of weights is read.

    snapshots: base first, then the checkpoints in the order of their steps.
    """

    recipe: Recipe
    targets: tuple[float | None, ...]
    snapshots: tuple[series.Snapshot, ...]
    config: Any
    architecture: ModelArchitecture
    plan: plan.ModelPlan


def locate(
    recipe: Recipe, options: MergeOptions, stream: bool | None
) -> tuple[tuple[series.Snapshot, ...], Any]:
    """The snapshots of base and checkpoints, and the steps (T,) of the latter."""
    labels, steps = plan.ordered_checkpoints(recipe)
    references = [str(recipe.config.base_model), *labels]
    found = series.locate(references, cache_dir=options.transformers_cache, stream=stream)
    return tuple(found), steps


def prepare(
    recipe: Recipe,
    targets: Sequence[float | None],
    options: MergeOptions,
    stream: bool | None = None,
) -> Prepared:
    """Read headers and configurations and make the plan.

    Raises RelexError for whatever is wrong with recipe or checkpoints, and NeedsMergekit.
    """
    plan.refuse_other_machinery(recipe, options)
    snapshots, steps = locate(recipe, options, stream)
    base = snapshots[0]
    config = read_config(base.folder, base.reference, trust_remote_code=options.trust_remote_code)
    sources = [open_source(snapshot) for snapshot in snapshots]
    architecture = architecture_of(config, base.folder, sources[0].tensors, options)
    made = plan.make_plan(recipe, targets, sources, steps, architecture, config)
    if not made.tensors:
        raise RelexError(f"{base.reference} has none of the tensors of its architecture")
    return Prepared(recipe, tuple(targets), snapshots, config, architecture, made)


def open_source(snapshot: series.Snapshot) -> Source:
    """The weights of a snapshot, from the disk or in ranges from the Hub."""
    return open_folder(snapshot.folder, snapshot.reference)


def schedule(prepared: Prepared, tensors: Sequence[int], resources: Resources) -> Schedule:
    """The pieces for ``tensors`` (indices into the plan)."""
    streamed = any(snapshot.streamed for snapshot in prepared.snapshots)
    return make_schedule(
        prepared.plan,
        tensors,
        resources.budget,
        span=resources.span(prepared.plan.T),
        piece_bytes=resources.piece_bytes(streamed),
        ahead=resources.ahead,
    )


def compute(
    prepared: Prepared,
    stage: Staging,
    folders: Sequence[Path],
    resources: Resources,
    options: MergeOptions,
    progress: Callable[[int], Callable[[int], None]],
) -> SeriesStatistics:
    """Write the weights of every target into its folder; go on where an earlier run was stopped.

    progress: given the bytes to read, returns what is called with the bytes of each read.
    """
    shards = shards_of(prepared.plan, options.out_shard_size)
    stage.begin(_key(prepared, options))
    for folder in folders:
        needed = sum(s.size for i, s in enumerate(shards) if i not in stage.finished)
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < needed * len(folders):
            raise RelexError(
                f"{stage.out}: the output takes {needed * len(folders):,} bytes and the disk has "
                f"{free:,} free; free some room or choose another place for OUT"
            )
    output = ModelOutput(prepared.plan, stage, folders, shards)
    pieces = schedule(prepared, output.unfinished(), resources)
    engine = Engine(
        prepared.plan,
        pieces,
        output,
        span=resources.span(prepared.plan.T),
        device=resources.device,
        workers=resources.workers,
        progress=progress(pieces.read_bytes),
    )
    try:
        engine.run()
    finally:
        output.close()
    return output.complete()


def _key(prepared: Prepared, options: MergeOptions) -> dict[str, Any]:
    """What must be the same for finished shards to be part of this run's result."""
    return {
        "recipe": prepared.recipe.to_yaml(),
        "targets": prepared.targets,
        "sources": [source.fingerprint() for source in prepared.plan.sources],
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
    for tensor in made.tensors:
        info = made.sources[-1].tensors[tensor.stored[-1]]
        numbers[str(info.dtype).removeprefix("torch.")] += info.numel
    return numbers.most_common(1)[0][0]
