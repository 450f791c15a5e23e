"""Full checkpoints in, an adapter out: the extrapolated update, truncated to rank r.

The engine writes Σ_t w_t δ_t of one matrix after the other into memory, and the leading part of its
SVD into the adapter. What is no linear layer's weight (embeddings, norms, biases, the output head)
is left out, as in PEFT's "all-linear", and its share of the update's energy is reported.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from relex_merge.engine.architecture import config_errors
from relex_merge.engine.engine import Collected, run_engine, schedule_for
from relex_merge.engine.truncated_svd import truncate_matrix
from relex_merge.errors import RelexError
from relex_merge.pipeline.adapter_output import AdapterOutput, Module, bytes_of
from relex_merge.pipeline.companions import complete_adapter
from relex_merge.pipeline.writing import Written
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics
from relex_merge.weights.source import TensorInfo

if TYPE_CHECKING:
    from relex_merge.engine.plan import TensorPlan
    from relex_merge.pipeline.options import RunOptions
    from relex_merge.pipeline.prepare import Prepared
    from relex_merge.pipeline.writing import Job

DEFAULT_RANK = 32


def write(job: Job) -> Written:
    """Write every target's adapter, truncated from the full update."""
    job.stage.begin(None)
    modules = _linear_modules(job.prepared, job.options)
    output = AdapterOutput(job.folders, modules, {}, _dtype(job.prepared))
    try:
        statistics = _write_factors(job, output)
        output.complete(_adapter_config(job, modules))
    finally:
        output.close()
    complete_adapter(job.prepared, job.folders, job.options.merge)
    left_out = _left_out(job.prepared, modules, statistics)
    return Written(
        statistics, tuple(output.energy(target, lost) for target, lost in enumerate(left_out))
    )


def output_bytes(prepared: Prepared, options: RunOptions) -> int:
    """Return the bytes of one target's adapter."""
    return bytes_of(_linear_modules(prepared, options), {}, _dtype(prepared))


def _dtype(prepared: Prepared) -> torch.dtype:
    return prepared.stated_dtype or torch.float32


def _linear_modules(prepared: Prepared, options: RunOptions) -> dict[int, Module]:
    """Return the linear layer that each of the plan's tensors is the weight of, by index.

    They are found in transformers' own model, built without memory; the output head is not among
    them.

    Raises:
        RelexError: no model can be made of the configuration, or no tensor is the weight of a
            linear layer.
    """
    from mergekit.common import get_auto_cls
    from transformers.pytorch_utils import Conv1D

    rank = options.lora_rank or DEFAULT_RANK
    trust = options.merge.trust_remote_code
    with config_errors(prepared.snapshots[0].reference), torch.device("meta"):
        kind = get_auto_cls(prepared.config.architectures[0])
        model = kind.from_config(prepared.config, trust_remote_code=trust)
    index_of = {tensor.name: i for i, tensor in enumerate(prepared.plan.tensors)}
    head = model.get_output_embeddings()
    modules = {}
    for path, layer in model.named_modules():
        if layer is head or not isinstance(layer, (torch.nn.Linear, Conv1D)):
            continue
        # Bases saved without their head lack the first part of the path.
        names = [f"{path}.weight", f"{path.partition('.')[2]}.weight"]
        found = [index_of[name] for name in names if name in index_of]
        if found:
            transposed = isinstance(layer, Conv1D)
            m, n = layer.weight.shape[::-1] if transposed else layer.weight.shape
            modules[found[0]] = Module(path, m, n, min(rank, m, n), transposed)
    if not modules:
        raise RelexError(
            f"{prepared.snapshots[0].reference}: none of its tensors is the weight of a linear "
            "layer, so there is nothing for an adapter; write the model"
        )
    return modules


def _adapter_config(job: Job, modules: Mapping[int, Module]) -> dict[str, Any]:
    from peft import LoraConfig

    base, _, revision = job.prepared.snapshots[0].reference.partition("@")
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=job.options.lora_rank or DEFAULT_RANK,
        base_model_name_or_path=base,
        revision=revision or None,
        fan_in_fan_out=any(module.transposed for module in modules.values()),
    )
    return dict(config.to_dict())


def _write_factors(job: Job, output: AdapterOutput) -> SeriesStatistics:
    """Write the factors of every module for every target; return the statistics of all tensors."""
    plan, resources, known = job.prepared.plan, job.resources, job.known
    matrices = sorted(output.modules)
    tensors = tuple(
        _as_delta(tensor) if i in output.modules else tensor
        for i, tensor in enumerate(plan.tensors)
    )
    made = replace(plan, tensors=tensors, deltas=True)
    largest = max(tensors[i].out.nbytes for i in matrices) * plan.targets
    left = replace(resources, budget=max(resources.budget - 3 * largest, resources.budget // 4))
    rest = [i for i in range(len(tensors)) if i not in output.modules]
    first = schedule_for(made, matrices, left, gram=known is None)
    second = schedule_for(made, [] if known else rest, left, combine=False)
    report = job.progress(first.read_bytes + second.read_bytes)
    deltas = _Deltas(output, tensors)
    run_engine(made, first, deltas, left, lambda _: report, known)
    others = Collected()
    run_engine(made, second, others, left, lambda _: report, None)
    found = {**deltas.statistics, **others.statistics}
    return known or SeriesStatistics(
        plan.steps, {tensors[i].name: found[i] for i in sorted(found)}, job.prepared.fingerprint()
    )


def _left_out(
    prepared: Prepared, modules: Mapping[int, Module], statistics: SeriesStatistics
) -> list[float]:
    """Return, for each target, the energy ‖δ‖² of the weights that are in no module."""
    plan = prepared.plan
    rest = [t for i, t in enumerate(plan.tensors) if i not in modules and t.parameters]
    return [
        sum(_energy(t, statistics.tensors[t.name].gram, plan.steps, target) for t in rest)
        for target in range(plan.targets)
    ]


def _as_delta(tensor: TensorPlan) -> TensorPlan:
    """Return the plan of a tensor's update, in float32: rounding to bfloat16 would lose it."""
    return replace(tensor, work=torch.float32, out=TensorInfo(torch.float32, tensor.out.shape))


def _energy(tensor: TensorPlan, G: Array, steps: Array, target: int) -> float:
    """Return ‖Σ_t w_t δ_t‖² = wᵀ G w."""
    assert tensor.parameters is not None  # integer buffers have no update
    w = tensor.parameters[target].weights(G, steps)
    return float(w @ G @ w)


class _Deltas:
    """A sink of the engine that gathers each update in memory and passes its leading part on."""

    def __init__(self, output: AdapterOutput, tensors: tuple[TensorPlan, ...]) -> None:
        self.statistics: dict[int, TensorStatistics] = {}
        self._output = output
        self._tensors = tensors
        self._open: dict[tuple[int, int], torch.Tensor] = {}
        self._lock = threading.Lock()

    def write(self, target: int, tensor: int, start: int, data: memoryview) -> None:
        """Take in bytes of an update for one target, from byte ``start`` on."""
        with self._lock:
            if (target, tensor) not in self._open:
                nbytes = self._tensors[tensor].out.nbytes
                self._open[target, tensor] = torch.empty(nbytes, dtype=torch.uint8)
        into = self._open[target, tensor].numpy()
        into[start : start + len(data)] = np.frombuffer(data, dtype=np.uint8)

    def finished(self, tensor: int, statistics: TensorStatistics | None) -> None:
        """Pass the truncated SVD of an update, now whole, on to the adapter."""
        assert statistics is not None  # linear weights are floating
        self.statistics[tensor] = statistics
        module = self._output.modules[tensor]
        for target in range(len(self._output.folders)):
            with self._lock:
                raw = self._open.pop((target, tensor))
            D = raw.view(torch.float32).reshape(self._tensors[tensor].out.shape)
            D = D.T if module.transposed else D
            total = float(torch.linalg.vector_norm(D, dtype=torch.float64) ** 2)
            self._output.put(target, tensor, truncate_matrix(D, module.rank), total)
