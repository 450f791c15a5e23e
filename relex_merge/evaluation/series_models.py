"""Any model of a series in one live model: base, checkpoints, candidates, backtests.

The checkpoints are read once, whatever the number of candidates; after that the base, the last
checkpoint and a few deltas are enough (:mod:`relex_merge.evaluation.deltas`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from relex_merge.engine.engine import run_engine, schedule_for
from relex_merge.engine.kernels import SMALL
from relex_merge.engine.spill import spilling
from relex_merge.evaluation.deltas import (
    BacktestWeights,
    Combination,
    DeltaFiles,
    Last,
    as_deltas,
    basis_of,
    parameters_of,
    solve,
)
from relex_merge.formatting import format_step
from relex_merge.trajectory.predictors.history import before_cut
from relex_merge.weights.source import read_numbers

if TYPE_CHECKING:
    from relex_merge.engine.engine import Progress
    from relex_merge.engine.plan import ModelPlan, TensorPlan
    from relex_merge.engine.resources import Resources
    from relex_merge.evaluation.live_model import LiveModel
    from relex_merge.report.candidates import Candidate
    from relex_merge.trajectory.gram import Array
    from relex_merge.trajectory.parameters import Parameters
    from relex_merge.trajectory.statistics import TensorStatistics
    from relex_merge.weights.source import Source

FEWEST_FITTED = 4  # checkpoints before the cut of a functional backtest
POWERS = (1.0, 0.7, 0.45)  # the ratios that are tried, as powers of the user's own


@dataclass(frozen=True)
class Cut:
    """A functional backtest: the last checkpoint predicted from the first ``fitted`` ones.

    Attributes:
        ratio: s_T / s_h, with s_h the step of the last checkpoint that is seen.
        fitted: h.
    """

    ratio: float
    fitted: int

    @property
    def delta(self) -> str:
        """The name of its prediction among the deltas."""
        return f"backtest {self.fitted}"


def cuts_at(steps: Array, target: float, *others: float) -> list[Cut]:
    """Return the functional backtests of a series: at the user's ratio, and at two smaller ones.

    Args:
        steps: observed, ascending (T,).
        target: the step that is asked for.
        others: further targets, whose own ratios are tried too.

    Returns:
        Those of ``target`` first, the widest of them first; those with fewer than
        ``FEWEST_FITTED`` checkpoints before the cut are left out.
    """
    last = float(steps[-1])
    ratios = [(target / last) ** power for power in POWERS] if target > last else []
    ratios += [other / last for other in others if other > last]
    found: dict[int, Cut] = {}
    for ratio in ratios:
        fitted = before_cut(steps, ratio)
        if FEWEST_FITTED <= fitted < len(steps):
            found.setdefault(fitted, Cut(float(last / steps[fitted - 1]), fitted))
    return list(found.values())


def why_no_cut(steps: Array, target: float) -> str | None:
    """Say why there is no functional backtest at a target's own ratio; None where there is one.

    Args:
        steps: observed, ascending (T,).
        target: the step that is asked for.
    """
    last = float(steps[-1])
    if target <= last:
        return (
            f"No functional backtest: step {format_step(target)} is not beyond the last observed "
            f"step {format_step(last)}."
        )
    fitted = before_cut(steps, target / last)
    if fitted >= FEWEST_FITTED:
        return None
    return (
        f"No functional backtest at the ratio of step {format_step(target)} ({target / last:.3g}×):"
        f" {fitted or 'none'} of the {len(steps)} checkpoints {'lies' if fitted == 1 else 'lie'} "
        f"before the cut, and {FEWEST_FITTED} are needed; observe more of the run, or ask for a "
        "nearer target. The divergences (KL) need no backtest."
    )


@dataclass(frozen=True)
class DeltaPlan:
    """Which deltas are read from a series, so that every candidate can be composed.

    Attributes:
        wanted: candidate → tensor → parameters.
        bases: tensor → name of a delta → what it is, the same names for every tensor.
        plan: what the engine makes: a float32 delta for each name but the last checkpoint's.
    """

    wanted: Mapping[Candidate, Mapping[str, Parameters]]
    bases: Mapping[str, Mapping[str, Combination]]
    plan: ModelPlan

    @property
    def nbytes(self) -> int:
        """Bytes of scratch disk for the deltas."""
        return 4 * sum(t.out.numel for t in self.plan.tensors) * self.plan.targets


def plan_deltas(plan: ModelPlan, candidates: Sequence[Candidate], cuts: Sequence[Cut]) -> DeltaPlan:
    """Plan the deltas of a series.

    Args:
        plan: of the series, observed checkpoints only, with one set of parameters a tensor.
        candidates: what is composed; may be empty.
        cuts: functional backtests; each is a delta of its own.
    """
    own = {t.name: t.parameters[0] for t in plan.tensors if t.parameters is not None}
    wanted = {c: {n: parameters_of(c, p) for n, p in own.items()} for c in candidates}
    bases = {}
    for name, parameters in own.items():
        basis = basis_of([w[name] for w in wanted.values()]) if wanted else {}
        backtests = {cut.delta: BacktestWeights(parameters, cut.fitted) for cut in cuts}
        bases[name] = {**basis, **backtests}
    written = {name: _but_the_last(basis) for name, basis in bases.items()}
    return DeltaPlan(wanted, bases, as_deltas(plan, written))


def _but_the_last(basis: Mapping[str, Combination]) -> dict[str, Combination]:
    """Return what must be written: the last checkpoint lies on the disk already."""
    return {name: b for name, b in basis.items() if not isinstance(b, Last)}


class SeriesModels:
    """Reads a series once, and puts any of its models into a live model.

    Args:
        plan: of the series, observed checkpoints only, with one set of parameters a tensor.
        live: the model in memory, of the base's architecture.
        candidates: what :meth:`put_candidate` will be asked for.
        cuts: what :meth:`put_backtest` will be asked for.
        scratch: a folder for the deltas, 4 bytes a number and delta.

    Raises:
        RelexError: a tensor of the series is no parameter of the live model.
    """

    def __init__(
        self,
        plan: ModelPlan,
        live: LiveModel,
        candidates: Sequence[Candidate],
        cuts: Sequence[Cut],
        scratch: Path,
    ) -> None:
        live.check_names({t.name: t.out.shape for t in plan.tensors})
        self.live = live
        self._plan = plan
        self._deltas = plan_deltas(plan, candidates, cuts)
        self._scratch = scratch
        self._files: DeltaFiles | None = None
        self._solved: dict[Candidate, dict[str, dict[str, float]]] = {}

    def read(self, resources: Resources, progress: Progress) -> Mapping[str, TensorStatistics]:
        """Read all checkpoints and keep the deltas; return what the tensors told of themselves."""
        plan = self._deltas.plan
        names = list(_but_the_last(next(iter(self._deltas.bases.values()))))
        files = DeltaFiles(self._scratch, names, plan)
        pieces = schedule_for(plan, range(len(plan.tensors)), resources)
        with spilling(plan, pieces, self._scratch / "spilled") as spilled:
            run_engine(spilled, pieces, files, resources, progress, None)
        self._files = files
        for candidate, wanted in self._deltas.wanted.items():
            self._solved[candidate] = {
                name: self._coefficients(name, parameters, files)
                for name, parameters in wanted.items()
            }
        return files.statistics

    def _coefficients(
        self, name: str, parameters: Parameters, files: DeltaFiles
    ) -> dict[str, float]:
        gram, steps = files.statistics[name].gram, self._plan.steps
        deltas = self._deltas.bases[name]
        basis = {n: b for n, b in deltas.items() if not isinstance(b, BacktestWeights)}
        found = solve(basis, parameters.weights(gram, steps), gram, steps)
        return dict(zip(basis, found.tolist(), strict=True))

    @property
    def rows(self) -> int:
        """T: the last checkpoint is row T."""
        return self._plan.T

    def put_row(self, row: int) -> None:
        """Put a model that was read: 0 is the base, t the t-th checkpoint, T the last."""
        for tensor in self._plan.tensors:
            self.live.put(tensor.name, _numbers(self._plan.sources[row], tensor.stored[row]))

    def put_candidate(self, candidate: Candidate) -> None:
        """Put a candidate, rounded as ``run`` would write it."""
        for tensor in self._plan.tensors:
            self._put(tensor, self._solved[candidate].get(tensor.name, {}))

    def put_backtest(self, cut: Cut) -> None:
        """Put the prediction of the last observed checkpoint from the first ones."""
        for tensor in self._plan.tensors:
            self._put(tensor, {} if tensor.parameters is None else {cut.delta: 1.0})

    def _put(self, tensor: TensorPlan, coefficients: Mapping[str, float]) -> None:
        assert self._files is not None  # read() comes first
        base = _numbers(self._plan.sources[0], tensor.stored[0])
        moves = {name: a for name, a in coefficients.items() if a}
        if moves:
            dtype = torch.float64 if len(base) <= SMALL else torch.float32
            total = torch.zeros(len(base), dtype=dtype)
            for name, a in moves.items():
                if isinstance(self._deltas.bases[tensor.name][name], Last):
                    last = _numbers(self._plan.sources[-1], tensor.stored[-1])
                    total.add_(last.to(dtype).sub_(base), alpha=a)
                else:
                    total.add_(self._files.delta(name, tensor.name), alpha=a)
            base = total.add_(base).to(tensor.out.dtype)
        self.live.put(tensor.name, base)


def _numbers(source: Source, name: str) -> torch.Tensor:
    return read_numbers(source, name, 0, source.tensors[name].numel)
