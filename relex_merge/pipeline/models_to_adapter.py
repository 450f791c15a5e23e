"""A series of full checkpoints extrapolated to an adapter: its update, truncated to rank r.

The engine writes Σ_t w_t δ_t of one matrix after the other into memory, and the leading part of its
SVD into the adapter. What is no linear layer's weight (embeddings, norms, biases, the output head)
is left out, as in PEFT's "all-linear", and its share of the update's energy reported.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from relex_merge.engine.engine import Collected, run_engine, schedule_for
from relex_merge.engine.plan import TensorPlan
from relex_merge.engine.truncated_svd import truncate_matrix
from relex_merge.errors import RelexError
from relex_merge.pipeline.adapter_output import AdapterOutput, Module
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics
from relex_merge.weights.source import TensorInfo

if TYPE_CHECKING:
    from relex_merge.engine.engine import Progress
    from relex_merge.engine.resources import Resources
    from relex_merge.pipeline.prepare import Prepared


def linear_modules(prepared: Prepared, rank: int, trust_remote_code: bool) -> dict[int, Module]:
    """Index of the plan's tensor → the linear layer that it is the weight of.

    From transformers' own model, built without memory; the output head is not among them. Raises
    RelexError when no tensor is one.
    """
    from mergekit.common import get_auto_cls
    from transformers.pytorch_utils import Conv1D

    kind = get_auto_cls(prepared.config.architectures[0])
    with torch.device("meta"):
        model = kind.from_config(prepared.config, trust_remote_code=trust_remote_code)
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


def compute(
    prepared: Prepared,
    output: AdapterOutput,
    resources: Resources,
    progress: Progress,
    known: SeriesStatistics | None,
) -> tuple[SeriesStatistics, list[float]]:
    """Write every target's adapter. known: statistics of an earlier pass over the same weights.

    Returns the statistics of all tensors, and for each target the energy ‖δ‖² of what was left out.
    """
    plan = prepared.plan
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
    report = progress(first.read_bytes + second.read_bytes)
    deltas = _Deltas(output, tensors)
    run_engine(made, first, deltas, left, lambda _: report, known)
    others = Collected()
    run_engine(made, second, others, left, lambda _: report, None)
    found = {**deltas.statistics, **others.statistics}
    statistics = known or SeriesStatistics(
        plan.steps, {tensors[i].name: found[i] for i in sorted(found)}, prepared.fingerprint()
    )
    left_out = [
        sum(
            _energy(tensors[i], statistics.tensors[tensors[i].name], plan.steps, k)
            for i in rest
            if tensors[i].parameters
        )
        for k in range(plan.targets)
    ]
    return statistics, left_out


def _as_delta(tensor: TensorPlan) -> TensorPlan:
    """The tensor's update in float32: it would not survive rounding as part of the weight."""
    return replace(tensor, work=torch.float32, out=TensorInfo(torch.float32, tensor.out.shape))


def _energy(tensor: TensorPlan, s: TensorStatistics, steps: Any, target: int) -> float:
    """‖Σ_t w_t δ_t‖² = wᵀ G w."""
    w = tensor.parameters[target].weights(s.gram, steps) if tensor.parameters else np.zeros(0)
    return float(w @ s.gram @ w) if len(w) else 0.0


class _Deltas:
    """An engine's sink: gathers each update in memory, and hands its leading part on."""

    def __init__(self, output: AdapterOutput, tensors: tuple[TensorPlan, ...]) -> None:
        self.statistics: dict[int, TensorStatistics] = {}
        self._output = output
        self._tensors = tensors
        self._open: dict[tuple[int, int], torch.Tensor] = {}
        self._lock = threading.Lock()

    def write(self, target: int, tensor: int, start: int, data: memoryview) -> None:
        """Bytes of an update for one target."""
        with self._lock:
            if (target, tensor) not in self._open:
                nbytes = self._tensors[tensor].out.nbytes
                self._open[target, tensor] = torch.empty(nbytes, dtype=torch.uint8)
        into = self._open[target, tensor].numpy()
        into[start : start + len(data)] = np.frombuffer(data, dtype=np.uint8)

    def finished(self, tensor: int, statistics: TensorStatistics | None) -> None:
        """An update is whole: its truncated SVD goes to the adapter."""
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
