"""A run from recipe to finished folder: prepare, compute, finish."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from relex_merge import __version__
from relex_merge.checkpoints import locate
from relex_merge.engine import plan
from relex_merge.engine.architecture import architecture_of, read_config
from relex_merge.engine.engine import Engine, Sink
from relex_merge.engine.resources import Resources
from relex_merge.engine.schedule import Schedule, make_schedule
from relex_merge.engine.spill import spilling
from relex_merge.engine.stacks import adapters_of
from relex_merge.errors import RelexError
from relex_merge.hub.ranges import Connections
from relex_merge.pipeline import companions
from relex_merge.pipeline.model_output import ModelOutput, shards_of
from relex_merge.pipeline.staging import Staging
from relex_merge.recipe.load import Recipe
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics
from relex_merge.weights.adapter import open_adapter
from relex_merge.weights.adapter_config import read_adapter_config
from relex_merge.weights.merged import MergedSource
from relex_merge.weights.remote import HubSource
from relex_merge.weights.source import ADAPTER_WEIGHTS, Source, open_folder

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
    snapshots: tuple[locate.Snapshot, ...]
    observed: npt.NDArray[np.bool_]
    config: Any
    architecture: ModelArchitecture
    plan: plan.ModelPlan

    def fingerprint(self) -> str:
        """The same for the same weights: commits on the Hub; sizes and times of local files."""
        marks = [
            snapshot.pin.mark if snapshot.pin else source.fingerprint()
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
    cache = options.transformers_cache
    snapshots = locate.locate(references, cache_dir=cache, stream=stream)
    if snapshots[0].streamed and _read_often(snapshots):
        snapshots[:1] = locate.locate(references[:1], cache_dir=cache, stream=False)
    base = snapshots[0]
    if base.is_adapter:
        raise RelexError(
            f"base_model {base.reference} is an adapter; name the model that the adapters are on"
        )
    config = read_config(base.folder, base.reference, trust_remote_code=options.trust_remote_code)
    with Connections() as connections:
        sources = locate.in_parallel(lambda s: open_source(s, connections), snapshots)
    sources = adapted(snapshots, sources)
    architecture = architecture_of(config, base.folder, sources[0].tensors, options)
    steps = np.array([c.step for c in listed], dtype=np.float64)
    observed = np.array([c.observed for c in listed], dtype=bool)
    made = plan.make_plan(
        recipe, targets, sources, steps, architecture, config, observed=steps[observed]
    )
    if not made.tensors:
        raise RelexError(f"{base.reference} has none of the tensors of its architecture")
    return Prepared(recipe, tuple(targets), tuple(snapshots), observed, config, architecture, made)


def open_source(snapshot: locate.Snapshot, connections: Connections) -> Source:
    """The weights of a snapshot, from the disk or in ranges from the Hub."""
    if snapshot.streamed and snapshot.pin is not None:
        return HubSource(snapshot.pin, snapshot.folder, snapshot.reference, connections)
    files = [f for f in ADAPTER_WEIGHTS if snapshot.is_adapter and f in snapshot.files][:1]
    if snapshot.is_adapter and not files:
        raise RelexError(f"{snapshot.reference} is an adapter without {ADAPTER_WEIGHTS[0]}")
    return open_folder(snapshot.folder, snapshot.reference, files)


def _read_often(snapshots: Sequence[locate.Snapshot]) -> bool:
    """Whether the base's weights are read for every adapter: in mixed series, and for DoRA."""
    adapters = [s for s in snapshots[1:] if s.is_adapter]
    mixed = 0 < len(adapters) < len(snapshots) - 1
    return mixed or any(read_adapter_config(s.folder, s.reference).dora for s in adapters)


def adapted(snapshots: Sequence[locate.Snapshot], sources: Sequence[Source]) -> list[Source]:
    """The sources, adapters as the base with them applied. Raises RelexError where they do not fit.

    snapshots, sources: base first.
    """
    base = sources[0]
    found = list(sources)
    trained_on: dict[str, str] = {}
    for index, snapshot in enumerate(snapshots[1:], start=1):
        if snapshot.is_adapter:
            config = read_adapter_config(snapshot.folder, snapshot.reference)
            if config.base:
                trained_on.setdefault(PurePath(config.base).name, snapshot.reference)
            found[index] = MergedSource(base, open_adapter(sources[index], config, base))
    if len(trained_on) > 1:
        (one, first), (other, second) = list(trained_on.items())[:2]
        raise RelexError(
            f"{first} is an adapter on {one}, {second} on {other}; a series has one base"
        )
    return found


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
    found = Collected()
    everything = range(len(prepared.plan.tensors))
    pieces = schedule(prepared, everything, resources, combine=False)
    run_engine(prepared, pieces, found, resources, progress, None)
    names = [tensor.name for tensor in prepared.plan.tensors]
    tensors = {names[i]: found.statistics[i] for i in everything if i in found.statistics}
    return SeriesStatistics(prepared.plan.steps, tensors, prepared.fingerprint())


class Collected:
    """A sink that keeps the statistics; ``onward`` takes the bytes, where any are written."""

    def __init__(self, onward: Sink | None = None) -> None:
        self.statistics: dict[int, TensorStatistics] = {}
        self._onward = onward

    def write(self, target: int, tensor: int, start: int, data: memoryview) -> None:
        """Never called where the schedule combines nothing."""
        assert self._onward is not None
        self._onward.write(target, tensor, start, data)

    def finished(self, tensor: int, statistics: TensorStatistics | None) -> None:
        """Keep what is known of a tensor."""
        if statistics is not None:
            self.statistics[tensor] = statistics
        if self._onward is not None:
            self._onward.finished(tensor, statistics)


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


def check_known(prepared: Prepared, known: SeriesStatistics) -> None:
    """Raise RelexError unless ``known`` was formed from these checkpoints."""
    plan = prepared.plan
    adapters = adapters_of(plan)
    wanted = {
        tensor.name
        for tensor in plan.tensors
        if tensor.predictors is not None
        and (not adapters or any(tensor.stored[0] in a.deltas for a in adapters))
    }
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
    for adapter in adapters_of(made)[-1:]:
        for info in adapter.source.tensors.values():
            numbers[str(info.dtype).removeprefix("torch.")] += info.numel
        return numbers.most_common(1)[0][0]
    for tensor in made.tensors:
        info = made.sources[-1].tensors[tensor.stored[-1]]
        numbers[str(info.dtype).removeprefix("torch.")] += info.numel
    return numbers.most_common(1)[0][0]
