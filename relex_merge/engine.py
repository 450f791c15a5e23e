"""The out-of-core engine: pieces are read ahead on threads, summed, solved, combined, written.

Three parties share a fixed set of equal buffers:

* one *loader* takes the pieces of the schedule in order; for each it waits for a free buffer and
  has a pool of readers fill the T + 1 rows;
* *workers*, one a core (or CUDA stream), run the two loops of :mod:`relex_merge.kernels` over the
  spans of a full buffer: first G, then, once the last span of a tensor has been added and its
  weight vectors are known, the combination, which goes straight to its place in the output;
* a buffer goes back when the last loop over it is done.

Partial sums are added in the order of the spans, whoever finishes first, so that results do not
depend on threads, budget or luck. The first error stops everything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
import torch

from relex_merge import kernels
from relex_merge.buffers import Buffer, BufferPool
from relex_merge.errors import RelexError
from relex_merge.plan import ModelPlan, TensorPlan
from relex_merge.schedule import Piece, Schedule, Segment
from relex_merge.sources import Read
from relex_merge.statistics import TensorStatistics

READERS = 8  # threads; more do not make one disk faster, and HTTP sources bring their own


class Sink(Protocol):
    """Where results go. Calls come from any thread."""

    def write(self, target: int, tensor: int, start: int, data: memoryview) -> None:
        """Bytes of an output tensor for one target, from byte ``start`` on."""

    def finished(self, tensor: int, statistics: TensorStatistics | None) -> None:
        """All bytes of a tensor were written, for all targets."""


@dataclass
class _Tensor:
    """The state of one tensor between its first span and its last byte."""

    plan: TensorPlan
    spans: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    early: dict[int, TensorStatistics] = field(default_factory=dict)
    statistics: TensorStatistics | None = None
    added: int = 0
    combined: int = 0
    W: torch.Tensor | None = None
    waiting: list[Callable[[], None]] = field(default_factory=list)


class Engine:
    """One run of a schedule. Raises what :meth:`run` documents; use once."""

    def __init__(
        self,
        plan: ModelPlan,
        schedule: Schedule,
        sink: Sink,
        *,
        span: int,
        device: torch.device,
        workers: int,
        progress: Callable[[int], None],
    ) -> None:
        self._plan = plan
        self._schedule = schedule
        self._sink = sink
        self._span = span
        self._device = device
        self._workers = workers
        self._progress = progress
        self._pool = BufferPool(
            schedule.buffer_bytes, schedule.buffers, pinned=device.type == "cuda"
        )
        self._stop = threading.Event()
        self._local = threading.local()
        self._idle = threading.Event()
        self._error: BaseException | None = None
        self._tensors: dict[int, _Tensor] = {}
        self._left = len(schedule.pieces)
        self._count = threading.Lock()

    def run(self) -> None:
        """Process every piece.

        Raises RelexError naming tensor and checkpoint for NaN or Inf, integer buffers that differ,
        files that change, and full disks; KeyboardInterrupt is passed on once all threads rest.
        """
        if not self._schedule.pieces:
            return
        with (
            kernels.ieee_float32(),
            _single_threaded(),
            ThreadPoolExecutor(READERS, "relex-read") as self._readers,
            ThreadPoolExecutor(self._workers, "relex-compute") as self._compute,
        ):
            loader = threading.Thread(target=self._guard(self._load), name="relex-load")
            loader.start()
            try:
                self._idle.wait()
            finally:
                self._stop.set()
                self._pool.close()
                loader.join()
                self._readers.shutdown(cancel_futures=True)
                self._compute.shutdown(cancel_futures=True)
        if self._error is not None:
            raise self._error

    def _guard(self, task: Callable[[], None]) -> Callable[[], None]:
        """``task`` that does nothing after a stop and turns an error into one."""

        def guarded() -> None:
            if self._stop.is_set():
                return
            try:
                with self._stream():
                    task()
            except BaseException as error:  # it is raised again in run()
                with self._count:
                    self._error = self._error or error
                self._stop.set()
                self._idle.set()

        return guarded

    def _stream(self) -> AbstractContextManager[object]:
        """A CUDA stream of this thread's own, so that one worker copies while another computes."""
        if self._device.type != "cuda":
            return nullcontext()
        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._local.stream)

    def _submit(self, pool: ThreadPoolExecutor, task: Callable[[], None]) -> None:
        if not self._stop.is_set():
            pool.submit(self._guard(task))

    # reading

    def _load(self) -> None:
        for piece in self._schedule.pieces:
            buffer = self._pool.acquire()
            if buffer is None or self._stop.is_set():
                return
            rows = _Countdown(
                self._plan.T + 1,
                partial(self._submit, self._compute, partial(self._begin, piece, buffer)),
            )
            for row in range(self._plan.T + 1):
                self._submit(self._readers, partial(self._read_row, piece, buffer, row, rows))

    def _read_row(self, piece: Piece, buffer: Buffer, row: int, rows: _Countdown) -> None:
        source = self._plan.sources[row]
        reads = []
        for segment in piece.segments:
            name = self._plan.tensors[segment.tensor].stored[row]
            itemsize = source.tensors[name].dtype.itemsize
            first = segment.position + row * segment.row_bytes
            size = (segment.stop - segment.start) * itemsize
            reads.append(Read(name, segment.start * itemsize, buffer.bytes[first : first + size]))
        source.read(reads)
        self._progress(sum(len(read.into) for read in reads))
        rows.down()

    # arithmetic

    def _begin(self, piece: Piece, buffer: Buffer) -> None:
        """A buffer is full: hand its spans to the workers."""
        work = [(s, i) for s in piece.segments for i in self._spans(s)]
        done = _Countdown(len(work) * (piece.gram + piece.combine), partial(self._release, buffer))
        for segment, columns in work:
            state = self._state(segment.tensor)
            combine = partial(self._combine, state, segment, columns, buffer, done)
            if piece.gram:
                gram = partial(
                    self._gram,
                    state,
                    segment,
                    columns,
                    buffer,
                    done,
                    combine if piece.combine else None,
                )
                self._submit(self._compute, gram)
            else:
                self._when_solved(state, combine)

    def _spans(self, segment: Segment) -> list[slice]:
        """The segment's numbers, counted from its start, cut at multiples of the span."""
        n = segment.stop - segment.start
        return [slice(i, min(i + self._span, n)) for i in range(0, max(n, 1), self._span)]

    def _state(self, index: int) -> _Tensor:
        with self._count:
            if index not in self._tensors:
                tensor = self._plan.tensors[index]
                spans = max(-(-tensor.out.numel // self._span), 1)
                self._tensors[index] = _Tensor(tensor, spans)
            return self._tensors[index]

    def _rows(
        self, state: _Tensor, segment: Segment, columns: slice, buffer: Buffer
    ) -> kernels.Rows:
        """The base and the T checkpoints over ``columns``, on the device, as they count."""
        n = segment.stop - segment.start
        dtypes = [
            s.tensors[name].dtype
            for s, name in zip(self._plan.sources, state.plan.stored, strict=True)
        ]
        start, step = segment.position, segment.row_bytes
        if len(set(dtypes)) == 1 and n * dtypes[0].itemsize == step:
            block = buffer.tensor[start : start + step * len(dtypes)].view(dtypes[0])
            rows: kernels.Rows = block.view(len(dtypes), n)[:, columns]
        else:
            rows = [
                buffer.tensor[start + t * step : start + t * step + n * dtype.itemsize].view(dtype)[
                    columns
                ]
                for t, dtype in enumerate(dtypes)
            ]
        return _as_mergekit_would(_to_device(rows, self._device), state.plan)

    def _gram(
        self,
        state: _Tensor,
        segment: Segment,
        columns: slice,
        buffer: Buffer,
        done: _Countdown,
        combine: Callable[[], None] | None,
    ) -> None:
        rows = self._rows(state, segment, columns, buffer)
        if state.plan.predictors is None:
            _require_equal(rows, state.plan, self._plan)
            statistics = None
        else:
            statistics = kernels.accumulate(rows, kernels.compute_dtype(rows, state.plan.out.numel))
            if not np.isfinite(statistics.gram).all():
                raise RelexError(_non_finite(rows, state.plan, self._plan))
        index = (segment.start + columns.start) // self._span
        if combine:
            self._when_solved(state, combine)
        self._add(state, index, statistics)
        done.down()

    def _add(self, state: _Tensor, index: int, statistics: TensorStatistics | None) -> None:
        """Add one span's sums, in the order of the spans; after the last, solve and go on."""
        with state.lock:
            state.early[index] = statistics  # type: ignore[assignment]
            while state.added in state.early:
                part = state.early.pop(state.added)
                if part is not None:
                    state.statistics = part if state.statistics is None else state.statistics + part
                state.added += 1
            if state.added < state.spans:
                return
            state.W = self._solve(state)
            waiting, state.waiting = state.waiting, []
        for task in waiting:
            self._submit(self._compute, task)

    def _solve(self, state: _Tensor) -> torch.Tensor:
        """W (K, T) float64: a weight vector for each target."""
        if state.plan.predictors is None or state.statistics is None:
            return torch.zeros((1, self._plan.T), dtype=torch.float64)
        gram = state.statistics.gram
        steps = self._plan.steps
        return torch.from_numpy(np.stack([p.weights(gram, steps) for p in state.plan.predictors]))

    def _when_solved(self, state: _Tensor, task: Callable[[], None]) -> None:
        with state.lock:
            if state.W is None:
                state.waiting.append(task)
                return
        self._submit(self._compute, task)

    def _combine(
        self, state: _Tensor, segment: Segment, columns: slice, buffer: Buffer, done: _Countdown
    ) -> None:
        rows = self._rows(state, segment, columns, buffer)
        out = state.plan.out
        start = (segment.start + columns.start) * out.dtype.itemsize
        for target, result in enumerate(self._results(state, rows)):
            data = result.to(out.dtype).cpu().contiguous().view(torch.uint8).numpy().data
            self._sink.write(target, segment.tensor, start, data)
        done.down()
        with state.lock:
            state.combined += 1
            last = state.combined == state.spans
        if last:
            self._sink.finished(segment.tensor, state.statistics)
            with self._count:
                del self._tensors[segment.tensor]

    def _results(self, state: _Tensor, rows: kernels.Rows) -> list[torch.Tensor]:
        assert state.W is not None  # combined only once solved
        if state.plan.predictors is None:
            return [rows[0]] * max(1, self._targets())
        out = [torch.empty_like(rows[0], dtype=state.plan.work) for _ in state.W]
        kernels.combine(rows, state.W, out, kernels.compute_dtype(rows, state.plan.out.numel))
        return out

    def _targets(self) -> int:
        return next((len(t.predictors) for t in self._plan.tensors if t.predictors), 1)

    def _release(self, buffer: Buffer) -> None:
        self._pool.release(buffer)
        with self._count:
            self._left -= 1
            last = self._left == 0
        if last:
            self._idle.set()


class _Countdown:
    """Calls ``then`` in the thread that counts it down to zero."""

    def __init__(self, count: int, then: Callable[[], None]) -> None:
        self._count = count
        self._then = then
        self._lock = threading.Lock()

    def down(self) -> None:
        with self._lock:
            self._count -= 1
            last = self._count == 0
        if last:
            self._then()


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Each worker computes on one core: the engine's parallelism is over spans."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _to_device(rows: kernels.Rows, device: torch.device) -> kernels.Rows:
    if device.type == "cpu":
        return rows
    if isinstance(rows, torch.Tensor) and rows.is_contiguous():
        return rows.to(device, non_blocking=True)
    return [row.to(device, non_blocking=True) for row in rows]


def _as_mergekit_would(rows: kernels.Rows, plan: TensorPlan) -> kernels.Rows:
    """Inputs rounded to the recipe's ``dtype`` where that is narrower than what is stored."""
    if plan.predictors is None:
        return rows
    if all(torch.promote_types(row.dtype, plan.work) == plan.work for row in rows):
        return rows
    return [row.to(plan.work) for row in rows]


def _require_equal(rows: kernels.Rows, plan: TensorPlan, model: ModelPlan) -> None:
    """mergekit's rule for integer buffers: they are copied, but only when all inputs agree."""
    for t, row in enumerate(rows):
        if row.dtype != rows[0].dtype or not torch.equal(row, rows[0]):
            raise RelexError(
                f"{model.sources[t].label}: {plan.name} holds integers ({row.dtype}) that differ "
                "from the base's; integer or quantized weights cannot be extrapolated, dequantize "
                "the checkpoints first"
            )


def _non_finite(rows: kernels.Rows, plan: TensorPlan, model: ModelPlan) -> str:
    for t, row in enumerate(rows):
        if not bool(torch.isfinite(row).all()):
            return (
                f"{model.sources[t].label}: {plan.name} holds NaN or Inf; leave that checkpoint out"
            )
    return (
        f"{plan.name}: the squared distance from the base overflows; are these checkpoints of it?"
    )
