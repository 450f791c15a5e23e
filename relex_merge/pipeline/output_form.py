"""The two forms of an output: a full model, or an adapter; from checkpoints of either kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from relex_merge.engine.factors import adapters_of, split
from relex_merge.errors import RelexError
from relex_merge.hub.references import is_local_path
from relex_merge.pipeline import (
    adapters_to_adapter,
    adapters_to_model,
    models_to_adapter,
    models_to_model,
    prepare,
)
from relex_merge.pipeline.adapter_output import DISCARDED, AdapterOutput, Module, infos_of
from relex_merge.pipeline.companions import copy_tokenizer
from relex_merge.report.contents import AdapterEntry
from relex_merge.trajectory.statistics import SeriesStatistics
from relex_merge.weights.adapter import PREFIX, Adapter, Full, LowRank
from relex_merge.weights.source import TensorInfo

if TYPE_CHECKING:
    from mergekit.options import MergeOptions

    from relex_merge.engine.engine import Progress
    from relex_merge.engine.resources import Resources
    from relex_merge.pipeline.prepare import Prepared
    from relex_merge.pipeline.staging import Staging

FORMS = ("adapter", "model")
DEFAULT_RANK = 32  # of an adapter made from full checkpoints


@dataclass(frozen=True)
class Form:
    """What is written. adapter: whether it is an adapter; rank: its rank, None: the series' own."""

    adapter: bool
    rank: int | None = None


def form_of(prepared: Prepared, form: str | None, rank: int | None) -> Form:
    """The form asked for, by default that of the checkpoints. Raises RelexError."""
    if form not in (None, *FORMS):
        raise RelexError(f"an output is written as {' or '.join(FORMS)}, not as {form!r}")
    adapter = bool(adapters_of(prepared.plan)) if form is None else form == "adapter"
    if rank is not None and not adapter:
        raise RelexError("--lora-rank is for an adapter; add --as adapter")
    if rank is not None and rank < 1:
        raise RelexError(f"--lora-rank is {rank}; it must be at least 1")
    return Form(adapter, rank)


def examine(prepared: Prepared, resources: Resources, progress: Progress) -> SeriesStatistics:
    """The Gram matrices of a series of either kind."""
    if adapters_of(prepared.plan):
        return adapters_to_adapter.examine(prepared, resources, progress)
    return models_to_model.examine(prepared, resources, progress)


def compute(
    prepared: Prepared,
    form: Form,
    stage: Staging,
    folders: Sequence[Path],
    resources: Resources,
    options: MergeOptions,
    progress: Progress,
    known: SeriesStatistics | None,
) -> tuple[SeriesStatistics, list[AdapterEntry]]:
    """Write weights and configuration of every target into its folder.

    known: statistics of an earlier pass over the same weights. Returns the statistics, and for an
    adapter what the report says of it, for each target.
    """
    adapters = adapters_of(prepared.plan)
    if known is not None:
        prepare.check_known(prepared, known)
    if form.adapter:
        stage.begin(None)
        if adapters:
            return _from_adapters(
                prepared, adapters, form, folders, resources, options, progress, known
            )
        return _from_models(prepared, form, folders, resources, options, progress, known)
    if adapters:
        found = (
            adapters_to_adapter.examine(prepared, resources, progress) if known is None else known
        )
        adapters_to_model.compute(prepared, stage, folders, resources, options, progress, found)
    else:
        found = models_to_model.compute(
            prepared, stage, folders, resources, options, progress, known
        )
    for folder in folders:
        models_to_model.add_companions(prepared, folder, options)
    return found, []


def _from_adapters(
    prepared: Prepared,
    adapters: Sequence[Adapter],
    form: Form,
    folders: Sequence[Path],
    resources: Resources,
    options: MergeOptions,
    progress: Progress,
    known: SeriesStatistics | None,
) -> tuple[SeriesStatistics, list[AdapterEntry]]:
    modules, stored = _layout(prepared, adapters, form)
    plan = prepared.plan
    tensors = tuple(
        replace(t, out=stored[i][1], work=stored[i][1].dtype) if i in stored else t
        for i, t in enumerate(plan.tensors)
    )
    prepared = replace(prepared, plan=replace(plan, tensors=tensors))
    output = AdapterOutput(folders, modules, stored, _dtype(prepared, adapters))
    try:
        found = adapters_to_adapter.compute(prepared, output, resources, progress, known)
        base = adapters[-1].config.base
        if base is None or is_local_path(base):
            base = prepared.snapshots[0].reference
        content = {**adapters[-1].config.content, "base_model_name_or_path": base}
        return _finish(prepared, output, content, options, found, [0.0] * len(folders))
    finally:
        output.close()


def _from_models(
    prepared: Prepared,
    form: Form,
    folders: Sequence[Path],
    resources: Resources,
    options: MergeOptions,
    progress: Progress,
    known: SeriesStatistics | None,
) -> tuple[SeriesStatistics, list[AdapterEntry]]:
    from peft import LoraConfig

    rank = form.rank or DEFAULT_RANK
    modules = models_to_adapter.linear_modules(prepared, rank, options.trust_remote_code)
    dtype = _given_dtype(prepared) or torch.float32
    output = AdapterOutput(folders, modules, {}, dtype)
    try:
        found, left_out = models_to_adapter.compute(prepared, output, resources, progress, known)
        base, _, revision = prepared.snapshots[0].reference.partition("@")
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=rank,
            base_model_name_or_path=base,
            revision=revision or None,
            fan_in_fan_out=any(module.transposed for module in modules.values()),
        )
        return _finish(prepared, output, config.to_dict(), options, found, left_out)
    finally:
        output.close()


def adapter_output_bytes(prepared: Prepared, form: Form, options: MergeOptions) -> int:
    """Bytes of one target's adapter."""
    adapters = adapters_of(prepared.plan)
    if adapters:
        modules, stored = _layout(prepared, adapters, form)
        dtype = _dtype(prepared, adapters)
    else:
        rank, stored = form.rank or DEFAULT_RANK, {}
        modules = models_to_adapter.linear_modules(prepared, rank, options.trust_remote_code)
        dtype = _given_dtype(prepared) or torch.float32
    return sum(info.nbytes for info in infos_of(modules, stored, dtype).values())


def remarks(adapter: AdapterEntry) -> list[str]:
    """What a user should know of an adapter that does not hold all of the update."""
    found = []
    lossy = {path: lost for path, lost in adapter["modules"].items() if lost > DISCARDED}
    if lossy:
        worst = max(lossy, key=lambda path: lossy[path])
        found.append(
            f"warning: rank {adapter['rank']} leaves out more than {DISCARDED:.0%} of the update's "
            f"energy in {len(lossy)} of {len(adapter['modules'])} modules (most in {worst}: "
            f"{lossy[worst]:.1%}; {adapter['discarded']:.1%} of the whole); raise --lora-rank"
        )
    if adapter["left_out"] > DISCARDED:
        found.append(
            f"warning: {adapter['left_out']:.1%} of the update's energy is in embeddings, norms, "
            "biases or the output head, which the adapter leaves out; --as model keeps all of it"
        )
    return found


def _finish(
    prepared: Prepared,
    output: AdapterOutput,
    config: Mapping[str, Any],
    options: MergeOptions,
    found: SeriesStatistics,
    left_out: Sequence[float],
) -> tuple[SeriesStatistics, list[AdapterEntry]]:
    """Configuration and tokenizer beside the factors; what the report says of each target."""
    output.complete(config)
    base, last = prepared.snapshots[0], prepared.snapshots[-1]
    for folder in output.folders:
        if options.copy_tokenizer:
            copy_tokenizer([last.folder, base.folder], folder)
    return found, [output.energy(k, lost) for k, lost in enumerate(left_out)]


def _layout(
    prepared: Prepared, adapters: Sequence[Adapter], form: Form
) -> tuple[dict[int, Module], dict[int, tuple[str, TensorInfo]]]:
    """What an adapter file holds: modules in factors, and weights stored whole."""
    factored, whole = split(prepared.plan, adapters)
    modules = {i: _module(prepared, adapters, i, form.rank) for i in factored}
    return modules, {i: _stored_whole(prepared, adapters, i) for i in whole}


def _module(
    prepared: Prepared, adapters: Sequence[Adapter], index: int, rank: int | None
) -> Module:
    name = prepared.plan.tensors[index].stored[0]
    deltas = [(a, d) for a in adapters if isinstance(d := a.deltas.get(name), LowRank)]
    adapter, delta = deltas[0]
    path = delta.a.removeprefix(PREFIX).rpartition(".lora_")[0]
    m = adapter.source.tensors[delta.b].shape[0]
    n = adapter.source.tensors[delta.a].shape[1]
    own = max(d.rank for _, d in deltas)
    embedding = delta.a.endswith(".lora_embedding_A")
    return Module(path, m, n, min(rank or own, m, n), delta.transposed, embedding)


def _stored_whole(
    prepared: Prepared, adapters: Sequence[Adapter], index: int
) -> tuple[str, TensorInfo]:
    """Name in the adapter's file, dtype and shape of a weight that adapters store whole."""
    tensor = prepared.plan.tensors[index]
    deltas = [adapter.deltas.get(tensor.stored[0]) for adapter in adapters]
    names = {delta.name for delta in deltas if isinstance(delta, Full)}
    if any(isinstance(delta, LowRank) for delta in deltas) or len(names) > 1:
        raise RelexError(
            f"some adapters of the series store {tensor.name} whole and others as factors; write "
            "the full model with --as model"
        )
    infos = [a.source.tensors[next(iter(names))] for a in adapters if tensor.stored[0] in a.deltas]
    dtype = _given_dtype(prepared) or infos[-1].dtype
    return next(iter(names)), TensorInfo(dtype, tensor.out.shape)


def _given_dtype(prepared: Prepared) -> torch.dtype | None:
    from mergekit.common import dtype_from_name

    config = prepared.recipe.config
    found: torch.dtype | None = dtype_from_name(config.out_dtype or config.dtype)
    return found


def _dtype(prepared: Prepared, adapters: Sequence[Adapter]) -> torch.dtype:
    """The recipe's, or that in which the last adapter stores its factors."""
    last = adapters[-1]
    stored = Counter(
        last.source.tensors[d.a].dtype for d in last.deltas.values() if isinstance(d, LowRank)
    )
    return _given_dtype(prepared) or next(iter(stored), torch.float32)
