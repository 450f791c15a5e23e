"""A series of adapters in, an adapter out; no full model is formed on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from relex_merge.engine.factors import adapters_of, split
from relex_merge.errors import RelexError
from relex_merge.hub.references import is_local_path
from relex_merge.pipeline.adapter_output import AdapterOutput, Module, bytes_of
from relex_merge.pipeline.adapter_pass import AdapterPass
from relex_merge.pipeline.companions import complete_adapter
from relex_merge.pipeline.writing import Written
from relex_merge.weights.adapter import Adapter, Full, LowRank
from relex_merge.weights.names import PREFIX
from relex_merge.weights.source import TensorInfo

if TYPE_CHECKING:
    from relex_merge.pipeline.options import RunOptions
    from relex_merge.pipeline.prepare import Prepared
    from relex_merge.pipeline.writing import Job


def write(job: Job) -> Written:
    """Write every target's adapter."""
    job.stage.begin(None)
    adapters = adapters_of(job.prepared.plan)
    layout = _layout(job.prepared, adapters, job.options.lora_rank)
    prepared = _stored_as(job.prepared, layout)
    output = AdapterOutput(job.folders, layout.modules, layout.whole, layout.dtype)
    try:
        found = AdapterPass(prepared, job.resources, output).run(job.progress, job.known)
        base = adapters[-1].config.base
        if base is None or is_local_path(base):
            base = prepared.snapshots[0].reference
        output.complete({**adapters[-1].config.content, "base_model_name_or_path": base})
    finally:
        output.close()
    complete_adapter(prepared, job.folders, job.options.merge)
    return Written(found, tuple(output.energy(target) for target in range(len(job.folders))))


def output_bytes(prepared: Prepared, options: RunOptions) -> int:
    """Return the bytes of one target's adapter."""
    layout = _layout(prepared, adapters_of(prepared.plan), options.lora_rank)
    return bytes_of(layout.modules, layout.whole, layout.dtype)


@dataclass(frozen=True)
class _Layout:
    """What the adapter's file holds.

    Attributes:
        modules: index of the plan's tensor → the module that is stored as factors.
        whole: index → name in the file, dtype and shape of a weight that is stored whole.
        dtype: of the factors.
    """

    modules: dict[int, Module]
    whole: dict[int, tuple[str, TensorInfo]]
    dtype: torch.dtype


def _layout(prepared: Prepared, adapters: Sequence[Adapter], rank: int | None) -> _Layout:
    factored, whole = split(prepared.plan, adapters)
    return _Layout(
        {i: _module(prepared, adapters, i, rank) for i in factored},
        {i: _stored_whole(prepared, adapters, i) for i in whole},
        prepared.stated_dtype or _dtype_of_factors(adapters[-1]),
    )


def _stored_as(prepared: Prepared, layout: _Layout) -> Prepared:
    """Return the run with the dtypes in which adapters store weights whole."""
    tensors = tuple(
        replace(t, out=layout.whole[i][1], work=layout.whole[i][1].dtype)
        if i in layout.whole
        else t
        for i, t in enumerate(prepared.plan.tensors)
    )
    return replace(prepared, plan=replace(prepared.plan, tensors=tensors))


def _module(
    prepared: Prepared, adapters: Sequence[Adapter], index: int, rank: int | None
) -> Module:
    name = prepared.plan.tensors[index].stored[0]
    deltas = [(a, d) for a in adapters if isinstance(d := a.deltas.get(name), LowRank)]
    adapter, delta = deltas[0]
    path = delta.a.removeprefix(PREFIX).rpartition(".lora_")[0]
    m = adapter.source.tensors[delta.b].shape[0]
    n = adapter.source.tensors[delta.a].shape[1]
    highest = max(d.rank for _, d in deltas)
    embedding = delta.a.endswith(".lora_embedding_A")
    return Module(path, m, n, min(rank or highest, m, n), delta.transposed, embedding)


def _stored_whole(
    prepared: Prepared, adapters: Sequence[Adapter], index: int
) -> tuple[str, TensorInfo]:
    """Return name in the adapter's file, dtype and shape of a weight that adapters store whole."""
    tensor = prepared.plan.tensors[index]
    deltas = [adapter.deltas.get(tensor.stored[0]) for adapter in adapters]
    names = {delta.name for delta in deltas if isinstance(delta, Full)}
    if any(isinstance(delta, LowRank) for delta in deltas) or len(names) > 1:
        raise RelexError(
            f"some adapters of the series store {tensor.name} whole and others as factors; write "
            "the full model with --as model"
        )
    name = next(iter(names))
    infos = [a.source.tensors[name] for a in adapters if tensor.stored[0] in a.deltas]
    return name, TensorInfo(prepared.stated_dtype or infos[-1].dtype, tensor.out.shape)


def _dtype_of_factors(adapter: Adapter) -> torch.dtype:
    """Return the dtype in which an adapter stores its factors."""
    stored = (
        adapter.source.tensors[delta.a].dtype
        for delta in adapter.deltas.values()
        if isinstance(delta, LowRank)
    )
    return next(stored, torch.float32)
