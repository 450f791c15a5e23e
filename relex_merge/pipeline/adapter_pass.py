"""One pass over the factors of a series of adapters: G of every weight, and the adapter from it.

Weights that an adapter stores whole (``modules_to_save``) go through the engine of full
checkpoints; everything after G is what full checkpoints use.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from relex_merge.engine import engine, kernels
from relex_merge.engine.factors import (
    READERS,
    Stack,
    adapters_of,
    factor_bytes,
    gram,
    read_stack,
    split,
)
from relex_merge.engine.memory_limits import memory_errors
from relex_merge.engine.threads import compute_pool, single_threaded
from relex_merge.engine.truncated_svd import truncate_product
from relex_merge.errors import RelexError
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics

if TYPE_CHECKING:
    from relex_merge.engine.engine import Progress
    from relex_merge.engine.resources import Resources
    from relex_merge.pipeline.adapter_output import AdapterOutput
    from relex_merge.pipeline.prepare import Prepared


@dataclass(frozen=True)
class AdapterPass:
    """One pass over the adapters of a series.

    Attributes:
        prepared: a series of adapters.
        resources: cores, device and memory.
        output: takes every target's factors; None forms the Gram matrices alone.
    """

    prepared: Prepared
    resources: Resources
    output: AdapterOutput | None = None

    @memory_errors()
    def run(self, progress: Progress, known: SeriesStatistics | None = None) -> SeriesStatistics:
        """Return the statistics of all adapted weights, in the model's order.

        Args:
            progress: shows how much was read.
            known: statistics of an earlier pass over the same adapters.
        """
        plan = self.prepared.plan
        adapters = adapters_of(plan)
        factored, whole = split(plan, adapters)
        index_of = {plan.tensors[i].stored[0]: i for i in factored}
        pieces = engine.schedule_for(
            plan,
            whole,
            self.resources,
            gram=known is None,
            combine=self.output is not None,
        )
        total = sum(factor_bytes(adapters, name) for name in index_of)
        report = progress(total + pieces.read_bytes)
        found: dict[str, TensorStatistics] = {}

        def work(name: str, index: int, readers: Executor) -> None:
            stack = read_stack(adapters, name, readers).to(self.resources.device)
            report(factor_bytes(adapters, name))
            tensor = plan.tensors[index].name
            found[tensor] = known.tensors[tensor] if known else self._statistics(stack, tensor)
            if self.output is not None:
                self._write(self.output, index, stack, found[tensor].gram)

        self._for_each(work, index_of)
        sink = engine.Collected(self.output)
        engine.run_engine(plan, pieces, sink, self.resources, lambda _: report, known)
        found |= {plan.tensors[i].name: s for i, s in sink.statistics.items()}
        names = [tensor.name for tensor in plan.tensors if tensor.name in found]
        ordered = {name: found[name] for name in names}
        return SeriesStatistics(plan.steps, ordered, self.prepared.fingerprint())

    def _for_each(
        self, work: Callable[[str, int, Executor], None], index_of: dict[str, int]
    ) -> None:
        """Work on every weight: on one for each core, while one more is being read."""
        with (
            kernels.ieee_float32(),
            single_threaded(),
            compute_pool(READERS, "relex-adapters") as readers,
            compute_pool(self.resources.workers + 1, "relex-factors") as workers,
        ):
            tasks = [workers.submit(work, name, i, readers) for name, i in index_of.items()]
            try:
                for task in tasks:
                    task.result()
            except BaseException:
                workers.shutdown(wait=False, cancel_futures=True)
                raise

    def _statistics(self, stack: Stack, name: str) -> TensorStatistics:
        """Return G of one weight; ‖θ₀‖² stays unknown, since the base's weights are not read."""
        G = gram(stack)
        if not np.isfinite(G).all():
            broken = int(np.flatnonzero(~np.isfinite(np.diag(G)))[0])
            label = self.prepared.plan.sources[broken + 1].label
            raise RelexError(f"{label}: {name} holds NaN or Inf; leave that checkpoint out")
        moved = stack.numel if G[self.prepared.plan.last, self.prepared.plan.last] > 0 else 0
        return TensorStatistics(G, float("nan"), moved, stack.numel)

    def _write(self, output: AdapterOutput, index: int, stack: Stack, G: Array) -> None:
        plan = self.prepared.plan
        for target, predictor in enumerate(plan.tensors[index].parameters or ()):
            w = predictor.weights(G, plan.steps)
            truncated = truncate_product(*stack.weighted(w), output.modules[index].rank)
            output.put(target, index, truncated, float(w @ G @ w))
