"""Every candidate of a series from a few deltas, written in one pass over the checkpoints.

Of each tensor every candidate is θ₀ + Σ_t w_t δ_t, and its w lies in the span of a few vectors: the
r leading left singular vectors u_k of G (what every predictor continues), e_T (the last observed
checkpoint), and for ``anchor: average`` the mean of the last W unit vectors. So the engine writes
one delta Mᵀb for each vector b of that basis but e_T, in float32, and a candidate is the base plus
one number a tensor and delta. The numbers are those that bring Mᵀ(Σ a_b b) nearest to Mᵀw,

    a = argmin ‖Λ^½ Uᵀ (B a − w)‖²,        G = U Λ Uᵀ,

in float64; what is left is checked, and is zero up to rounding. A functional backtest's prediction
is one more delta: the method fitted on the first h checkpoints has a direction of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch

from relex_merge.engine.plan import ModelPlan, TensorPlan
from relex_merge.errors import RelexError, disk_errors
from relex_merge.report.candidates import Candidate
from relex_merge.trajectory.backtests.compared import method
from relex_merge.trajectory.gram import Array, unit
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.predictors.history import History
from relex_merge.trajectory.spectra import spectra
from relex_merge.trajectory.statistics import TensorStatistics
from relex_merge.weights.source import TensorInfo

SPANNED = 1e-9  # largest relative distance between a candidate and its composition from the basis


class Combination(Protocol):
    """A weight vector from G and the steps, as :class:`Parameters` is one."""

    def weights(self, gram: Array, steps: Array) -> Array:
        """Return w (T,) for G (T, T) at ``steps`` (T,)."""


@dataclass(frozen=True)
class Direction:
    """u_k, the k-th leading left singular vector of the deltas; zero where there is none."""

    k: int

    def weights(self, gram: Array, steps: Array) -> Array:
        """Return u_k (T,)."""
        return np.asarray(spectra(gram[np.newaxis]).vectors[0, :, self.k])


@dataclass(frozen=True)
class Last:
    """e_T: the last observed checkpoint."""

    def weights(self, gram: Array, steps: Array) -> Array:
        """Return e_T (T,)."""
        return unit(len(steps), len(steps) - 1)


@dataclass(frozen=True)
class Average:
    """The mean of the last ``count`` checkpoints."""

    count: int

    def weights(self, gram: Array, steps: Array) -> Array:
        """Return w (T,), 1/count for each of the last ``count``."""
        w = np.zeros(len(steps))
        w[-self.count :] = 1 / self.count
        return w


@dataclass(frozen=True)
class BacktestWeights:
    """The prediction of the last observed checkpoint from the first ``fitted`` checkpoints.

    Attributes:
        parameters: of the method; a window or rank wider than what is fitted is shortened.
        fitted: h, how many checkpoints the method sees.
    """

    parameters: Parameters
    fitted: int

    def weights(self, gram: Array, steps: Array) -> Array:
        """Return w (T,), zero from checkpoint h on."""
        h = self.fitted
        history = History.of(gram[np.newaxis, :h, :h], steps[:h])
        W = method([self.parameters]).predict(history, np.asarray([steps[-1]]))
        w = np.zeros(len(steps))
        w[:h] = W[0, 0]
        return w


def basis_of(parameters: Sequence[Parameters]) -> dict[str, Combination]:
    """Return the vectors that all candidates of a tensor are combinations of, by name.

    Args:
        parameters: of every candidate, for one tensor.
    """
    rank = max(p.rank for p in parameters)
    basis: dict[str, Combination] = {f"direction {k}": Direction(k) for k in range(rank)}
    basis["last"] = Last()
    for count in sorted({p.window or 0 for p in parameters if p.anchor == "average"}):
        basis[f"average {count}"] = Average(count)
    return basis


def solve(basis: Mapping[str, Combination], w: Array, gram: Array, steps: Array) -> Array:
    """Return a (len(basis),) with Mᵀ Σ a_b b = Mᵀ w.

    Raises:
        RelexError: w is not in the span of the basis.
    """
    found = spectra(gram[np.newaxis])
    root = np.sqrt(found.eigenvalues[0])[:, np.newaxis] * found.vectors[0].T  # Λ^½ Uᵀ
    B = np.stack([b.weights(gram, steps) for b in basis.values()], axis=1)
    wanted = root @ w
    a, *_ = np.linalg.lstsq(root @ B, wanted, rcond=1e-13)
    missed = np.linalg.norm(root @ (B @ a) - wanted)
    if missed > SPANNED * max(
        float(np.linalg.norm(wanted)), float(root[0] @ root[0]) ** 0.5 * 1e-6
    ):
        raise RelexError(
            "this predictor cannot be composed from directions and the last checkpoint; evaluate "
            "the finished output in its place"
        )
    return np.asarray(a)


class DeltaFiles:
    """An engine's sink: raw float32 deltas of all tensors, one file for each combination.

    Calls may come from any thread. The files are mapped, so that what is needed comes from the page
    cache and memory stays free.
    """

    def __init__(self, folder: Path, names: Sequence[str], plan: ModelPlan) -> None:
        self.folder = folder
        self.names = tuple(names)
        self.statistics: dict[str, TensorStatistics] = {}
        self._plan = plan
        self._numel = {t.name: t.out.numel for t in plan.tensors}
        self._starts: dict[str, int] = {}
        position = 0
        for tensor in plan.tensors:
            if tensor.parameters is not None:
                self._starts[tensor.name] = position
                position += tensor.out.numel
        self.nbytes = 4 * position * len(self.names)
        self._lock = threading.Lock()
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._maps = [
                np.memmap(
                    folder / f"{i}.f32", dtype=np.float32, mode="w+", shape=(max(position, 1),)
                )
                for i in range(len(self.names))
            ]

    def write(self, target: int, tensor: int, start: int, data: memoryview) -> None:
        """Take bytes of a delta, from byte ``start`` of the tensor on."""
        first = self._starts[self._plan.tensors[tensor].name] + start // 4
        numbers = np.frombuffer(data, dtype=np.float32)
        self._maps[target][first : first + len(numbers)] = numbers

    def finished(self, tensor: int, statistics: TensorStatistics | None) -> None:
        """Keep what is known of a tensor."""
        if statistics is not None:
            with self._lock:
                self.statistics[self._plan.tensors[tensor].name] = statistics

    def delta(self, name: str, tensor: str) -> torch.Tensor:
        """Return the delta ``name`` of a tensor: float32 (numel,), a view of the mapped file."""
        start, numel = self._starts[tensor], self._numel[tensor]
        return torch.from_numpy(self._maps[self.names.index(name)][start : start + numel])


def as_deltas(plan: ModelPlan, combinations: Mapping[str, Mapping[str, Combination]]) -> ModelPlan:
    """Return the plan whose targets are the combinations, written as float32 deltas.

    Args:
        plan: of the series.
        combinations: tensor → name → combination, the same names for every tensor.
    """
    tensors = []
    for tensor in plan.tensors:
        if tensor.parameters is None:
            continue
        # The engine asks nothing but ``weights`` of what stands in for parameters.
        made = cast("tuple[Parameters, ...]", tuple(combinations[tensor.name].values()))
        tensors.append(_as_delta(tensor, made))
    targets = len(next(iter(combinations.values()), ()))
    return replace(plan, tensors=tuple(tensors), targets=targets, deltas=True)


def _as_delta(tensor: TensorPlan, parameters: tuple[Parameters, ...]) -> TensorPlan:
    info = TensorInfo(torch.float32, tensor.out.shape)
    return replace(tensor, out=info, work=torch.float32, parameters=parameters)


def parameters_of(candidate: Candidate, parameters: Parameters) -> Parameters:
    """Return a tensor's parameters with the target, scale and anchor of a candidate."""
    return replace(
        parameters,
        target_step=candidate.target_step,
        scale=candidate.scale,
        anchor=candidate.anchor,
    )
