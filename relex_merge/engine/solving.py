"""One tensor between its first span and its last byte: sums in order, then weight vectors."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import torch

from relex_merge.engine.plan import TensorPlan
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.statistics import TensorStatistics

Task = Callable[[], None]


class TensorSolver:
    """Adds the sums of ``spans`` spans, in their order whoever comes first, and solves for W.

    solved: W is there from the start, from ``known``, the sums of an earlier pass over the same
    weights. Calls may come from any thread.
    """

    def __init__(
        self,
        plan: TensorPlan,
        steps: Array,
        spans: int,
        *,
        known: TensorStatistics | None,
        solved: bool,
    ) -> None:
        self.plan = plan
        self.statistics = known
        self.W: torch.Tensor | None = None
        self._steps = steps
        self._spans = spans
        self._early: dict[int, TensorStatistics | None] = {}
        self._added = 0
        self._combined = 0
        self._waiting: list[Task] = []
        self._lock = threading.Lock()
        if solved:
            self.W = self._solve()

    def add(self, span: int, statistics: TensorStatistics | None) -> bool:
        """Take in one span's sums (None for a tensor that is copied). True after the last one."""
        with self._lock:
            self._early[span] = statistics
            while self._added in self._early:
                part = self._early.pop(self._added)
                if part is not None:
                    self.statistics = part if self.statistics is None else self.statistics + part
                self._added += 1
            return self._added == self._spans

    def solve(self) -> list[Task]:
        """Find W; returns the tasks that waited for it."""
        W = self._solve()
        with self._lock:
            self.W = W
            waiting, self._waiting = self._waiting, []
        return waiting

    def must_wait(self, task: Task) -> bool:
        """Whether W is not there yet; if so, the task is kept for :meth:`solve` to return."""
        with self._lock:
            if self.W is None:
                self._waiting.append(task)
            return self.W is None

    def combined(self) -> bool:
        """Count one span as written. True after the last one."""
        with self._lock:
            self._combined += 1
            return self._combined == self._spans

    def _solve(self) -> torch.Tensor:
        """W (K, T) float64: a weight vector for each target; no row for a tensor that is copied."""
        if self.plan.parameters is None or self.statistics is None:
            return torch.zeros((0, len(self._steps)), dtype=torch.float64)
        gram = self.statistics.gram
        return torch.from_numpy(
            np.stack([p.weights(gram, self._steps) for p in self.plan.parameters])
        )
