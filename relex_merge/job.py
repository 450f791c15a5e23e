"""A run from recipe to finished folder: prepare, compute, finish."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from relex_merge import __version__, companions, plan, series
from relex_merge.architecture import architecture_of, read_config
from relex_merge.engine import Engine, Sink
from relex_merge.errors import RelexError
from relex_merge.output import ModelOutput, shards_of
from relex_merge.ranges import Connections
from relex_merge.recipe import Recipe
from relex_merge.resources import Resources
from relex_merge.schedule import Schedule, make_schedule
from relex_merge.sources import Source, open_folder
from relex_merge.spill import spilling
from relex_merge.staging import Staging
from relex_merge.statistics import SeriesStatistics, TensorStatistics
from relex_merge.streaming import HubSource

if TYPE_CHECKING:
    from mergekit.architecture import ModelArchitecture
    from mergekit.options import MergeOptions

# Given the bytes to read, returns what is called with the bytes of each read.
Progress: TypeAlias = Callable[[int], Callable[[int], None]]


@dataclass(frozen=True)
class Prepared:
    """Everything known before a byte of weights is read.

    snapshots: base first, then the checkpoints in the order of their steps; observed: which of the
    checkpoints enter the fit, (T,).
    """

    recipe: Recipe
    targets: tuple[float | None, ...]
    snapshots: tuple[series.Snapshot, ...]
    observed: npt.NDArray[np.bool_]
    config: Any
    architecture: ModelArchitecture
    plan: plan.ModelPlan

    def fingerprint(self) -> str:
        """The same for the same weights: commits on the Hub; sizes and times of local files."""
        marks = [
            [snapshot.pin.repo, snapshot.sha] if snapshot.pin else source.fingerprint()
            for snapshot, source in zip(self.snapshots, self.plan.sources, strict=True)
        ]
        return hashlib.sha256(json.dumps(marks).encode()).hexdigest()


def prepare(
    recipe: Recipe,
    targets: Sequence[float | None],
    options: MergeOptions,
    stream: bool | None = None,
    *,
    holdout: bool = False,
) -> Prepared:
    """Read headers and configurations and make the plan.

    holdout: read the checkpoints of that role too. Raises RelexError for whatever is wrong with
    recipe or checkpoints, and NeedsMergekit.
    """
    plan.refuse_other_machinery(recipe, options)
    listed = [c for c in plan.listed_checkpoints(recipe) if c.observed or holdout]
    references = [str(recipe.config.base_model), *(c.reference for c in listed)]
    snapshots = series.locate(references, cache_dir=options.transformers_cache, stream=stream)
    base = snapshots[0]
    config = read_config(base.folder, base.reference, trust_remote_code=options.trust_remote_code)
    with Connections() as connections:
        sources = series.in_parallel(lambda s: open_source(s, connections), snapshots)
    architecture = architecture_of(config, base.folder, sources[0].tensors, options)
    steps = np.array([c.step for c in listed], dtype=np.float64)
    observed = np.array([c.observed for c in listed], dtype=bool)
    made = plan.make_plan(
        recipe, targets, sources, steps, architecture, config, observed=steps[observed]
    )
    if not made.tensors:
        raise RelexError(f"{base.reference} has none of the tensors of its architecture")
    return Prepared(recipe, tuple(targets), tuple(snapshots), observed, config, architecture, made)


def open_source(snapshot: series.Snapshot, connections: Connections) -> Source:
    """The weights of a snapshot, from the disk or in ranges from the Hub."""
    if snapshot.streamed and snapshot.pin is not None:
        return HubSource(snapshot.pin, snapshot.folder, snapshot.reference, connections)
    return open_folder(snapshot.folder, snapshot.reference)


def schedule(
    prepared: Prepared,
    tensors: Sequence[int],
    resources: Resources,
    *,
    gram: bool = True,
    combine: bool = True,
) -> Schedule:
    """The pieces for ``tensors`` (indices into the plan). gram, combine: which loops are wanted."""
    streamed = any(snapshot.streamed for snapshot in prepared.snapshots)
    return make_schedule(
        prepared.plan,
        tensors,
        resources.budget,
        span=resources.span(prepared.plan.T),
        piece_bytes=resources.piece_bytes(streamed),
        ahead=resources.ahead,
        gram=gram,
        combine=combine,
    )


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
    if known is not None:
        _check_known(prepared, known)
    shards = shards_of(prepared.plan, options.out_shard_size)
    stage.begin(_key(prepared, options))
    output = ModelOutput(prepared.plan, stage, folders, shards)
    pieces = schedule(prepared, output.unfinished(), resources, gram=known is None)
    left = sum(shard.size for i, shard in enumerate(shards) if i not in stage.finished)
    _check_room(stage, left * len(folders) + scratch_bytes(prepared, pieces))
    try:
        streamed = [snapshot.streamed for snapshot in prepared.snapshots]
        with spilling(prepared.plan, pieces, streamed, stage.folder / "scratch") as made:
            run_engine(replace(prepared, plan=made), pieces, output, resources, progress, known)
    finally:
        output.close()
    return replace(output.complete(), fingerprint=prepared.fingerprint())


def scratch_bytes(prepared: Prepared, pieces: Schedule) -> int:
    """Scratch disk of a run: the largest tensor that is read twice, of what comes from the Hub."""
    sources = zip(prepared.snapshots, prepared.plan.sources, strict=True)
    streamed = [i for i, (snapshot, _) in enumerate(sources) if snapshot.streamed]
    plan = prepared.plan
    return max(
        (
            sum(plan.sources[i].tensors[plan.tensors[tensor].stored[i]].nbytes for i in streamed)
            for tensor in pieces.twice
        ),
        default=0,
    )


def _check_room(stage: Staging, needed: int) -> None:
    free = shutil.disk_usage(stage.folder).free
    if free < needed:
        raise RelexError(
            f"{stage.out}: the run writes {needed:,} bytes and the disk has {free:,} free; free "
            "some room or choose another place for OUT"
        )


def examine(prepared: Prepared, resources: Resources, progress: Progress) -> SeriesStatistics:
    """Only form the Gram matrices, of every checkpoint that was prepared."""
    found = _Collected()
    everything = range(len(prepared.plan.tensors))
    pieces = schedule(prepared, everything, resources, combine=False)
    run_engine(prepared, pieces, found, resources, progress, None)
    names = [tensor.name for tensor in prepared.plan.tensors]
    tensors = {names[i]: found.statistics[i] for i in everything if i in found.statistics}
    return SeriesStatistics(prepared.plan.steps, tensors, prepared.fingerprint())


class _Collected:
    """The sink of a pass without an output."""

    def __init__(self) -> None:
        self.statistics: dict[int, TensorStatistics] = {}

    def write(self, target: int, tensor: int, start: int, data: memoryview) -> None:
        """Never called: the schedule combines nothing."""

    def finished(self, tensor: int, statistics: TensorStatistics | None) -> None:
        """Keep what is known of a tensor."""
        if statistics is not None:
            self.statistics[tensor] = statistics


def run_engine(
    prepared: Prepared,
    pieces: Schedule,
    sink: Sink,
    resources: Resources,
    progress: Progress,
    known: SeriesStatistics | None,
) -> None:
    """One run of the engine with what this machine can spare."""
    Engine(
        prepared.plan,
        pieces,
        sink,
        span=resources.span(prepared.plan.T),
        device=resources.device,
        workers=resources.workers,
        progress=progress(pieces.read_bytes),
        known=known.tensors if known else None,
    ).run()


def _check_known(prepared: Prepared, known: SeriesStatistics) -> None:
    wanted = {tensor.name for tensor in prepared.plan.tensors if tensor.predictors is not None}
    if known.fingerprint != prepared.fingerprint() or wanted != set(known.tensors):
        raise RelexError(
            "the Gram matrices to reuse were formed from other checkpoints, or these have changed "
            "since; run without --reuse"
        )


def _key(prepared: Prepared, options: MergeOptions) -> dict[str, Any]:
    """What must be the same for finished shards to be part of this run's result."""
    return {
        "version": __version__,
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
    for tensor in made.tensors:
        info = made.sources[-1].tensors[tensor.stored[-1]]
        numbers[str(info.dtype).removeprefix("torch.")] += info.numel
    return numbers.most_common(1)[0][0]
