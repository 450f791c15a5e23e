"""The out-of-core engine: pieces are read ahead on threads, summed, solved, combined, written.

Three parties share a fixed set of equal buffers:

* one *loader* takes the pieces of the schedule in order; for each it waits for a free buffer and
  has a pool of readers fill the T + 1 rows;
* *workers*, one a core (or CUDA stream), run the two loops of :mod:`relex_merge.engine.kernels`
  over the spans of a full buffer: first G, then, once the last span of a tensor has been added and
  its weight vectors are known, the combination, which goes straight to its place in the output;
* a buffer goes back when the last loop over it is done.

Partial sums are added in the order of the spans, whoever finishes first, so that results do not
depend on threads, budget or luck. The first error stops everything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
import torch

from relex_merge.engine import kernels, rows
from relex_merge.engine.buffers import Buffer, BufferPool
from relex_merge.engine.memory_limits import memory_errors
from relex_merge.engine.plan import ModelPlan
from relex_merge.engine.resources import Resources
from relex_merge.engine.schedule import Piece, Schedule, Segment, make_schedule
from relex_merge.engine.solving import Task, TensorSolver
from relex_merge.engine.threads import compute_pool, single_threaded
from relex_merge.errors import RelexError
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics
from relex_merge.weights.source import Read

R = TypeVar("R")

LEAST_COLUMNS = 1024  # numbers of a row; a GPU without room for these cannot be used


class Sink(Protocol):
    """Where results go. Calls come from any thread."""

    def write(self, target: int, tensor: int, start: int, data: memoryview) -> None:
        """Bytes of an output tensor for one target, from byte ``start`` on."""

    def finished(self, tensor: int, statistics: TensorStatistics | None) -> None:
        """A tensor is done: all its bytes were written, or, without an output, G is known.

        statistics: None for integer buffers, which are copied.
        """


class Engine:
    """One run of a schedule; use once.

    Args:
        plan, schedule, sink: what to make, in which pieces, where to.
        span: numbers of a tensor that are summed as one, as the schedule was made for.
        device, workers: where to compute, and how many at a time.
        progress: called with the bytes of each read, from any thread.
        known: statistics of an earlier pass, for a schedule without one.
    """

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
        known: Mapping[str, TensorStatistics] | None = None,
    ) -> None:
        self._plan = plan
        self._schedule = schedule
        self._sink = sink
        self._span = span
        self._part = span
        self._device = device
        self._workers = workers
        self._progress = progress
        self._known = known or {}
        self._pool = BufferPool(
            schedule.buffer_bytes, schedule.buffers, pinned=device.type == "cuda"
        )
        self._stop = threading.Event()
        self._idle = threading.Event()
        self._error: BaseException | None = None
        self._solvers: dict[int, TensorSolver] = {}
        self._left = len(schedule.pieces)
        self._lock = threading.Lock()
        self._local = threading.local()

    def run(self) -> None:
        """Process every piece.

        Raises RelexError naming tensor and checkpoint for NaN or Inf, integer buffers that differ,
        files that change, and full disks; KeyboardInterrupt is passed on once all threads rest.
        """
        if not self._schedule.pieces:
            return
        readers = max(source.parallel_reads for source in self._plan.sources)
        with (
            kernels.ieee_float32(),
            single_threaded(),
            ThreadPoolExecutor(readers, "relex-read") as self._readers,
            compute_pool(self._workers, "relex-compute") as self._compute,
        ):
            loader = threading.Thread(target=self._guard(self._load), name="relex-load")
            loader.start()
            try:
                self._idle.wait()
            finally:
                self._stop.set()
                self._pool.close()
                if self._left:
                    self._release_sources()
                loader.join()
                self._readers.shutdown(cancel_futures=True)
                self._compute.shutdown(cancel_futures=True)
        if self._error is not None:
            raise self._error

    def _release_sources(self) -> None:
        """After a failure or Ctrl-C nobody waits for a slow network any more."""
        for source in self._plan.sources:
            source.stop()

    def _guard(self, task: Task) -> Task:
        """``task`` that does nothing after a stop and turns an error into one."""

        def guarded() -> None:
            if self._stop.is_set():
                return
            try:
                with self._stream():
                    task()
            except BaseException as error:  # it is raised again in run()
                with self._lock:
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

    def _submit(self, pool: ThreadPoolExecutor, task: Task) -> None:
        if not self._stop.is_set():
            pool.submit(self._guard(task))

    # Reading.

    def _load(self) -> None:
        for piece in self._schedule.pieces:
            buffer = self._pool.acquire()
            if buffer is None or self._stop.is_set():
                return
            begin = partial(self._submit, self._compute, partial(self._begin, piece, buffer))
            left = _Countdown(self._plan.T + 1, begin)
            for row in range(self._plan.T + 1):
                self._submit(self._readers, partial(self._read_row, piece, buffer, row, left))

    def _read_row(self, piece: Piece, buffer: Buffer, row: int, left: _Countdown) -> None:
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
        left.down()

    # Arithmetic.

    def _begin(self, piece: Piece, buffer: Buffer) -> None:
        """A buffer is full: hand its spans to the workers."""
        work = [(s, c) for s in piece.segments for c in rows.spans_of(s, self._span)]
        done = _Countdown(len(work) * (piece.gram + piece.combine), partial(self._release, buffer))
        for segment, columns in work:
            solver = self._solver(segment.tensor)
            combine = partial(self._combine, solver, segment, columns, buffer, done)
            if piece.gram:
                gram = partial(self._gram, solver, segment, columns, buffer, done)
                self._submit(self._compute, gram)
            if piece.combine and not solver.must_wait(combine):
                self._submit(self._compute, combine)

    def _solver(self, tensor: int) -> TensorSolver:
        with self._lock:
            if tensor not in self._solvers:
                plan = self._plan.tensors[tensor]
                spans = max(-(-plan.out.numel // self._span), 1)
                self._solvers[tensor] = TensorSolver(
                    plan,
                    self._plan.steps,
                    spans,
                    known=self._known.get(plan.name),
                    solved=not self._schedule.gram,
                )
            return self._solvers[tensor]

    def _gram(
        self,
        solver: TensorSolver,
        segment: Segment,
        columns: slice,
        buffer: Buffer,
        done: _Countdown,
    ) -> None:
        parts = self._shrinking(partial(self._sums, segment, buffer), columns)
        sums = [part for part in parts if part is not None]
        statistics = sum(sums[1:], sums[0]) if sums else None
        done.down()
        if not solver.add((segment.start + columns.start) // self._span, statistics):
            return
        if self._schedule.combine:
            for task in solver.solve():
                self._submit(self._compute, task)
        else:
            self._finish(segment.tensor, solver)

    def _combine(
        self,
        solver: TensorSolver,
        segment: Segment,
        columns: slice,
        buffer: Buffer,
        done: _Countdown,
    ) -> None:
        self._shrinking(partial(self._write, solver, segment, buffer), columns)
        done.down()
        if solver.combined():
            self._finish(segment.tensor, solver)

    def _sums(self, segment: Segment, buffer: Buffer, columns: slice) -> TensorStatistics | None:
        """Sums over some columns of a segment; integer buffers are only compared."""
        plan = self._plan.tensors[segment.tensor]
        data = rows.view(buffer, segment, columns, self._plan, self._device)
        if plan.parameters is None:
            message = rows.unequal(data, plan, self._plan)
            if message:
                raise RelexError(message)
            return None
        dtype = kernels.compute_dtype(data, plan.out.numel)
        statistics = kernels.accumulate(data, dtype, self._plan.last)
        if not np.isfinite(statistics.gram).all():
            raise RelexError(rows.non_finite(data, plan, self._plan))
        return statistics

    def _write(
        self, solver: TensorSolver, segment: Segment, buffer: Buffer, columns: slice
    ) -> None:
        """Combine some columns of a segment, for every target."""
        plan = solver.plan
        assert solver.W is not None  # combined only once solved
        data = rows.view(buffer, segment, columns, self._plan, self._device)
        results = [data[0]] * self._plan.targets
        if plan.parameters is not None:
            results = [torch.empty_like(data[0], dtype=plan.work) for _ in solver.W]
            dtype = kernels.compute_dtype(data, plan.out.numel)
            onto_base = not self._plan.deltas
            kernels.combine(data, solver.W, results, dtype, onto_base=onto_base)
        start = (segment.start + columns.start) * plan.out.dtype.itemsize
        for target, result in enumerate(results):
            rounded = result.to(plan.out.dtype)
            if not rows.is_finite(rounded):
                raise RelexError(rows.overflow(plan))
            flat = rounded.cpu().contiguous().view(torch.uint8).numpy()
            self._sink.write(target, segment.tensor, start, flat.data)

    def _shrinking(self, task: Callable[[slice], R], columns: slice) -> list[R]:
        """``task`` over the columns; in smaller parts, from now on, when a GPU runs out of memory.

        Raises torch.OutOfMemoryError when not even ``LEAST_COLUMNS`` fit.
        """
        while True:
            part = min(self._part, max(columns.stop - columns.start, 1))
            starts = range(columns.start, max(columns.stop, columns.start + 1), part)
            try:
                return [task(slice(start, min(start + part, columns.stop))) for start in starts]
            except torch.OutOfMemoryError:
                if part <= LEAST_COLUMNS:
                    raise
                self._part = part // 2
                torch.cuda.empty_cache()

    def _finish(self, tensor: int, solver: TensorSolver) -> None:
        self._sink.finished(tensor, solver.statistics)
        with self._lock:
            del self._solvers[tensor]

    def _release(self, buffer: Buffer) -> None:
        self._pool.release(buffer)
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._idle.set()


class _Countdown:
    """Calls ``then`` in the thread that counts it down to zero."""

    def __init__(self, count: int, then: Task) -> None:
        self._count = count
        self._then = then
        self._lock = threading.Lock()

    def down(self) -> None:
        with self._lock:
            self._count -= 1
            last = self._count == 0
        if last:
            self._then()


# Given the bytes to read, returns what is called with the bytes of each read.
Progress: TypeAlias = Callable[[int], Callable[[int], None]]


def schedule_for(
    plan: ModelPlan,
    tensors: Sequence[int],
    resources: Resources,
    *,
    gram: bool = True,
    combine: bool = True,
    remote: bool | None = None,
) -> Schedule:
    """Cut the work on some tensors into pieces that fit this machine.

    Args:
        plan: what is made from what.
        tensors: indices into ``plan.tensors``.
        resources: memory, workers and device.
        gram: whether G is formed.
        combine: whether Σ_t w_t δ_t is written.
        remote: whether reads are to be cut for a network; by default, when a source is remote.
    """
    if remote is None:
        remote = any(source.remote for source in plan.sources)
    return make_schedule(
        plan,
        tensors,
        resources.budget,
        span=resources.span(plan.T),
        piece_bytes=resources.piece_bytes(remote),
        ahead=resources.ahead,
        gram=gram,
        combine=combine,
    )


class Collected:
    """A sink that keeps the statistics; ``onward`` takes the bytes, where any are written."""

    def __init__(self, onward: Sink | None = None) -> None:
        self.statistics: dict[int, TensorStatistics] = {}
        self._onward = onward

    def write(self, target: int, tensor: int, start: int, data: memoryview) -> None:
        """Never called where the schedule combines nothing."""
        assert self._onward is not None
        self._onward.write(target, tensor, start, data)

    def finished(self, tensor: int, statistics: TensorStatistics | None) -> None:
        """Keep what is known of a tensor."""
        if statistics is not None:
            self.statistics[tensor] = statistics
        if self._onward is not None:
            self._onward.finished(tensor, statistics)


def run_engine(
    plan: ModelPlan,
    pieces: Schedule,
    sink: Sink,
    resources: Resources,
    progress: Progress,
    known: SeriesStatistics | None,
) -> None:
    """Run a schedule with what this machine can spare, and check that the sources stayed the same.

    Args:
        plan: what is made from what.
        pieces: in which pieces.
        sink: where results go.
        resources: memory, workers and device.
        progress: told how many bytes will be read, and of each read.
        known: statistics of an earlier pass, for a schedule that forms none.

    Raises:
        RelexError: as :meth:`Engine.run`, for memory that does not suffice, and for a source that
            is not what it was when opened.
    """
    with memory_errors():
        Engine(
            plan,
            pieces,
            sink,
            span=resources.span(plan.T),
            device=resources.device,
            workers=resources.workers,
            progress=progress(pieces.read_bytes),
            known=known.tensors if known else None,
        ).run()
    check_unchanged(plan)


def check_unchanged(plan: ModelPlan) -> None:
    """Raise RelexError naming the file when a source is not what it was when it was opened."""
    for source in plan.sources:
        source.check_unchanged()
