"""What a run is made from, and how, settled before a byte of weights is read."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from relex_merge.checkpoints import locate
from relex_merge.checkpoints.configs import check_unquantized
from relex_merge.checkpoints.files import ADAPTER_WEIGHTS, CONFIG
from relex_merge.checkpoints.json_files import peek_json
from relex_merge.checkpoints.shard_file import COLLECTOR
from relex_merge.engine import plan
from relex_merge.engine.architecture import architecture_of, read_config
from relex_merge.engine.factors import adapters_of
from relex_merge.errors import RelexError
from relex_merge.hub.ranges import Connections
from relex_merge.places.pin import PlacePin
from relex_merge.places.ranges import Transfers
from relex_merge.recipe.listed import listed_checkpoints
from relex_merge.recipe.load import Recipe
from relex_merge.recipe.variant import Variant
from relex_merge.trajectory.statistics import SeriesStatistics
from relex_merge.weights.adapter import open_adapter
from relex_merge.weights.adapter_config import (
    AdapterConfig,
    read_adapter_config,
    read_sharded_config,
)
from relex_merge.weights.folder import open_folder
from relex_merge.weights.merged import MergedSource
from relex_merge.weights.names import check_fits
from relex_merge.weights.remote import HubSource, PlaceSource
from relex_merge.weights.sharded import open_sharded
from relex_merge.weights.source import Source, TensorInfo
from relex_merge.weights.titan import as_hugging_face

if TYPE_CHECKING:
    from mergekit.architecture import ModelArchitecture
    from mergekit.options import MergeOptions


@dataclass(frozen=True)
class Prepared:
    """Everything known before a byte of weights is read.

    Attributes:
        recipe: as it was expanded.
        variants: what is made.
        snapshots: base first, then the checkpoints in the order of their steps.
        observed: which of the checkpoints enter the fit, (T,).
        config: the base's transformers configuration.
        architecture: mergekit's definition of the base's tensors.
        plan: what is made from what.
    """

    recipe: Recipe
    variants: tuple[Variant, ...]
    snapshots: tuple[locate.Snapshot, ...]
    observed: npt.NDArray[np.bool_]
    config: Any
    architecture: ModelArchitecture
    plan: plan.ModelPlan

    def fingerprint(self) -> str:
        """Return a hash that is the same for the same weights.

        It is made from commits on the Hub, states in places, and sizes and times of local files.
        """
        marks = [
            snapshot.pin.mark if snapshot.pin else source.fingerprint()
            for snapshot, source in zip(self.snapshots, self.plan.sources, strict=True)
        ]
        return hashlib.sha256(json.dumps(marks).encode()).hexdigest()

    @property
    def stated_dtype(self) -> torch.dtype | None:
        """The dtype that the recipe states for the output."""
        from mergekit.common import dtype_from_name

        config = self.recipe.config
        found: torch.dtype | None = dtype_from_name(config.out_dtype or config.dtype)
        return found

    @property
    def output_dtype(self) -> str:
        """The dtype of most of a model's numbers, as transformers spells it."""
        made = [t.out for t in self.plan.tensors if t.parameters is not None]
        return _commonest_dtype(made) or "float32"

    @property
    def stored_dtype(self) -> str:
        """The dtype in which the last checkpoint stores most of its numbers."""
        for adapter in adapters_of(self.plan)[-1:]:
            return _commonest_dtype(adapter.source.tensors.values())
        last = self.plan.sources[-1].tensors
        return _commonest_dtype(last[tensor.stored[-1]] for tensor in self.plan.tensors)


def _commonest_dtype(infos: Iterable[TensorInfo]) -> str:
    """Return the dtype of most of the numbers, "" where there are none."""
    numbers: Counter[str] = Counter()
    for info in infos:
        numbers[str(info.dtype).removeprefix("torch.")] += info.numel
    return max(numbers, key=lambda name: numbers[name], default="")


def prepare(
    recipe: Recipe,
    variants: Sequence[Variant],
    options: MergeOptions,
    stream: bool | None = None,
    *,
    holdout: bool = False,
) -> Prepared:
    """Read headers and configurations and make the plan.

    Args:
        recipe: of this package's method.
        variants: what is made, one output each.
        options: mergekit's.
        stream: whether weights on the Hub and in places are read in ranges; None reads so what is
            not in the cache.
        holdout: whether the checkpoints of that role are read too.

    Raises:
        RelexError: something is wrong with the recipe or with a checkpoint.
        NeedsMergekit: only mergekit's own path can run the recipe.
    """
    plan.refuse_other_machinery(recipe, options)
    listed = [c for c in listed_checkpoints(recipe) if c.observed or holdout]
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
    for snapshot in snapshots:  # as far as their configurations are on this disk
        check_unquantized(peek_json(snapshot.folder / CONFIG), snapshot.reference)
    ranges = Ranges()
    with (
        ranges.hub.stopped_by_errors(),
        ranges.places.stopped_by_errors(),
        COLLECTOR.at_rest(),
    ):
        sources = locate.in_parallel(lambda s: open_source(s, ranges), snapshots)
    sources = [
        as_hugging_face(source, config)
        if snapshot.sharded is not None and not snapshot.is_adapter
        else source
        for snapshot, source in zip(snapshots, sources, strict=True)
    ]
    for snapshot, source in zip(snapshots[1:], sources[1:], strict=True):
        if snapshot.sharded is not None and not snapshot.is_adapter:
            check_fits(source.tensors, sources[0].tensors, source.label, sources[0].label)
    sources = adapted(snapshots, sources)
    architecture = architecture_of(config, base.folder, sources[0].tensors, options, base.reference)
    steps = np.array([c.step for c in listed], dtype=np.float64)
    observed = np.array([c.observed for c in listed], dtype=bool)
    planned = plan.make_plan(
        recipe, variants, sources, steps, architecture, config, observed=steps[observed]
    )
    if not planned.tensors:
        raise RelexError(f"{base.reference} has none of the tensors of its architecture")
    return Prepared(
        recipe, tuple(variants), tuple(snapshots), observed, config, architecture, planned
    )


@dataclass(frozen=True)
class Ranges:
    """What all streamed sources of a run share: requests to the Hub, and to places."""

    hub: Connections = field(default_factory=Connections)
    places: Transfers = field(default_factory=Transfers)


def open_source(snapshot: locate.Snapshot, ranges: Ranges) -> Source:
    """Open the weights of a snapshot, on the disk or in ranges where it lies. Raises RelexError."""
    if snapshot.sharded is not None:
        return open_sharded(snapshot.sharded, snapshot.reference, ranges.places)
    pin = snapshot.pin if snapshot.streamed else None
    if isinstance(pin, PlacePin):
        return PlaceSource(pin, snapshot.folder, snapshot.reference, ranges.places)
    if pin is not None:
        return HubSource(pin, snapshot.folder, snapshot.reference, ranges.hub)
    files = [f for f in ADAPTER_WEIGHTS if snapshot.is_adapter and f in snapshot.files][:1]
    if snapshot.is_adapter and not files:
        raise RelexError(f"{snapshot.reference} is an adapter without {ADAPTER_WEIGHTS[0]}")
    return open_folder(snapshot.folder, snapshot.reference, files)


def adapter_config_of(snapshot: locate.Snapshot) -> AdapterConfig:
    """Return what the configuration of an adapter says. Raises RelexError without one."""
    if snapshot.sharded is not None:
        return read_sharded_config(snapshot.sharded, snapshot.reference)
    return read_adapter_config(snapshot.folder, snapshot.reference)


def _read_often(snapshots: Sequence[locate.Snapshot]) -> bool:
    """Tell whether the base is read for every adapter, as in mixed series and for DoRA."""
    adapters = [s for s in snapshots[1:] if s.is_adapter]
    mixed = 0 < len(adapters) < len(snapshots) - 1
    return mixed or any(adapter_config_of(s).dora for s in adapters)


def adapted(snapshots: Sequence[locate.Snapshot], sources: Sequence[Source]) -> list[Source]:
    """Return the sources, with adapters replaced by the base with the adapter applied.

    Args:
        snapshots: base first.
        sources: of the snapshots.

    Raises:
        RelexError: an adapter does not fit the base, or the adapters have several bases.
    """
    base = sources[0]
    found = list(sources)
    trained_on: dict[str, str] = {}
    for index, snapshot in enumerate(snapshots[1:], start=1):
        if snapshot.is_adapter:
            config = adapter_config_of(snapshot)
            if config.base:
                trained_on.setdefault(PurePath(config.base).name, snapshot.reference)
            found[index] = MergedSource(base, open_adapter(sources[index], config, base))
    if len(trained_on) > 1:
        (one, first), (other, second) = list(trained_on.items())[:2]
        raise RelexError(
            f"{first} is an adapter on {one}, {second} on {other}; a series has one base"
        )
    return found


def check_known(prepared: Prepared, known: SeriesStatistics) -> None:
    """Raise RelexError unless ``known`` was formed from these checkpoints."""
    plan = prepared.plan
    adapters = adapters_of(plan)
    wanted = {
        tensor.name
        for tensor in plan.tensors
        if tensor.parameters is not None
        and (not adapters or any(tensor.stored[0] in a.deltas for a in adapters))
    }
    if known.sampled:
        raise RelexError(
            "the Gram matrices to reuse are estimates from a sample, not exact ones; run with "
            "--gram sample in the place of --reuse, or without --reuse"
        )
    if known.fingerprint != prepared.fingerprint() or wanted != set(known.tensors):
        raise RelexError(
            "the Gram matrices to reuse were formed from other checkpoints, or these have changed "
            "since; run without --reuse"
        )


def where_read(snapshots: Sequence[locate.Snapshot]) -> str:
    """Return where the weights come from: the disk unless some are streamed."""
    streamed = [snapshot.pin for snapshot in snapshots if snapshot.streamed]
    places = {pin.place.store for pin in streamed if isinstance(pin, PlacePin)}
    hub = ["the Hub"] if any(not isinstance(pin, PlacePin) for pin in streamed) else []
    return " and ".join([*hub, *sorted(places)]) or "the disk"
