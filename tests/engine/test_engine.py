"""The engine on sources in memory: schedules, budgets, threads, faults, and a GPU that is full."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relex_merge.engine import rows
from relex_merge.engine.engine import Engine
from relex_merge.engine.plan import ModelPlan, TensorPlan
from relex_merge.engine.schedule import Schedule, make_schedule
from relex_merge.errors import RelexError
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.statistics import TensorStatistics
from relex_merge.weights.source import Read, Source, TensorInfo

SPAN = 1000


class MemorySource(Source):
    """Tensors in memory, behind the interface of files."""

    def __init__(self, label: str, tensors: dict[str, torch.Tensor]) -> None:
        self.label = label
        self.values = tensors
        self.tensors = {n: TensorInfo(t.dtype, tuple(t.shape)) for n, t in tensors.items()}
        self.bytes_read = 0
        self._lock = threading.Lock()

    def read(self, reads: Sequence[Read]) -> None:
        for wish in reads:
            data = self.values[wish.name].reshape(-1).view(torch.uint8).numpy()
            wish.into[:] = data[wish.start : wish.start + len(wish.into)].data
            with self._lock:
                self.bytes_read += len(wish.into)


@dataclass
class MemorySink:
    """Collects what the engine writes."""

    plan: ModelPlan
    results: dict[tuple[int, str], torch.Tensor] = field(default_factory=dict)
    statistics: dict[str, TensorStatistics] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for tensor in self.plan.tensors:
            for target in range(self.plan.targets):
                empty = torch.full((tensor.out.nbytes,), 0xAA, dtype=torch.uint8)
                self.results[target, tensor.name] = empty

    def write(self, target: int, tensor: int, start: int, data: memoryview) -> None:
        flat = self.results[target, self.plan.tensors[tensor].name]
        flat.numpy()[start : start + len(data)] = np.asarray(data)

    def finished(self, tensor: int, statistics: TensorStatistics | None) -> None:
        name = self.plan.tensors[tensor].name
        assert name not in self.statistics, "finished once"
        assert statistics is not None, "nothing here is copied"
        self.statistics[name] = statistics

    def tensor(self, name: str, target: int = 0) -> torch.Tensor:
        plan = next(t for t in self.plan.tensors if t.name == name)
        return self.results[target, name].view(plan.out.dtype).reshape(plan.out.shape)


def model(
    sizes: Sequence[int],
    T: int = 5,
    dtypes: Sequence[torch.dtype] = (torch.float32,),
    targets: Sequence[float] = (50.0,),
    seed: int = 0,
) -> ModelPlan:
    """A plan over T checkpoints on a noisy line; rows take their dtypes in turn."""
    generator = torch.Generator().manual_seed(seed)
    base = {f"w{i}": torch.randn(n, generator=generator) for i, n in enumerate(sizes)}
    way = {name: torch.randn(w.shape, generator=generator) * 0.1 for name, w in base.items()}
    sources: list[MemorySource] = []
    for t in range(T + 1):
        dtype = dtypes[t % len(dtypes)]
        noise = {n: torch.randn(w.shape, generator=generator) * 0.05 for n, w in base.items()}
        state = {n: (w + t * way[n] + (t > 0) * noise[n]).to(dtype) for n, w in base.items()}
        sources.append(MemorySource(f"step_{t}" if t else "base", state))
    work = dtypes[0]
    for dtype in dtypes:
        work = torch.promote_types(work, dtype)
    parameters = tuple(Parameters(target) for target in targets)
    tensors = [
        TensorPlan(name, (name,) * (T + 1), work, TensorInfo(work, tuple(w.shape)), parameters)
        for name, w in base.items()
    ]
    steps = np.arange(1, T + 1, dtype=np.float64)
    return ModelPlan(tuple(sources), steps, len(targets), tuple(tensors))


def cut(plan: ModelPlan, budget: int = 2**26, **how: int | bool) -> Schedule:
    options: dict[str, Any] = {"span": SPAN, "piece_bytes": 2**17, "ahead": 3, **how}
    return make_schedule(plan, range(len(plan.tensors)), budget, **options)


def run(
    plan: ModelPlan,
    schedule: Schedule,
    workers: int = 2,
    known: Mapping[str, TensorStatistics] | None = None,
) -> MemorySink:
    sink = MemorySink(plan)
    cpu = torch.device("cpu")
    Engine(
        plan, schedule, sink, span=SPAN, device=cpu, workers=workers, known=known,
        progress=lambda n: None,
    ).run()  # fmt: skip
    return sink


def expected(plan: ModelPlan, name: str, target: float) -> torch.Tensor:
    """Rank 1, degree 1, by numpy's SVD in float64."""
    theta = [s.values[name].double().numpy() for s in plan.sources]  # type: ignore[attr-defined]
    M = np.stack([row - theta[0] for row in theta[1:]])
    U, S, V = np.linalg.svd(M, full_matrices=False)
    line = np.polyfit(plan.steps, U[:, 0] * S[0], 1)
    return torch.from_numpy(theta[0] + np.polyval(line, target) * V[0])


@given(
    sizes=st.lists(st.integers(0, 9000), min_size=1, max_size=8),
    budget=st.integers(300_000, 3_000_000),
    piece=st.integers(1, 400_000),
    gram=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_every_number_is_in_each_loop_once_and_buffers_keep_to_the_budget(
    sizes: list[int], budget: int, piece: int, gram: bool
) -> None:
    plan = model(sizes)
    schedule = cut(plan, budget, piece_bytes=piece, gram=gram)
    assert schedule.buffers * schedule.buffer_bytes <= budget
    for loop in ("gram", "combine"):
        seen = {i: np.zeros(size, dtype=int) for i, size in enumerate(sizes)}
        for part in schedule.pieces:
            if getattr(part, loop):
                for segment in part.segments:
                    assert segment.start % SPAN == 0
                    seen[segment.tensor][segment.start : segment.stop] += 1
        wanted = 0 if loop == "gram" and not gram else 1
        assert all((counts == wanted).all() for counts in seen.values())
    rows_ = plan.T + 1
    for part in schedule.pieces:
        ends = [s.position + rows_ * s.row_bytes for s in part.segments]
        starts = [s.position for s in part.segments]
        assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))
        assert ends[-1] <= schedule.buffer_bytes


def test_a_tensor_that_fits_is_read_once_and_a_larger_one_twice() -> None:
    plan = model([200_000, 10])
    wide, narrow = cut(plan, 2**26), cut(plan, 2**20)
    assert not wide.twice
    assert narrow.twice == (0,)
    for schedule in (wide, narrow):
        before = sum(s.bytes_read for s in plan.sources)  # type: ignore[attr-defined]
        run(plan, schedule)
        read = sum(s.bytes_read for s in plan.sources) - before  # type: ignore[attr-defined]
        assert read == schedule.read_bytes
    assert narrow.read_bytes == wide.read_bytes + plan.stored_bytes(0)


@pytest.mark.parametrize(
    "dtypes",
    [
        (torch.float32,),
        (torch.bfloat16,),
        (torch.float64,),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float64, torch.float32),
    ],
    ids=str,
)
def test_results_are_the_float64_svd_for_any_mixture_of_dtypes(
    dtypes: tuple[torch.dtype, ...],
) -> None:
    plan = model([70_000, 3, 1, 0, 2500], dtypes=dtypes)
    sink = run(plan, cut(plan))
    for name in ("w0", "w1", "w2", "w4"):
        want = expected(plan, name, 50.0)
        base = plan.sources[0].values[name].double()  # type: ignore[attr-defined]
        got = sink.tensor(name)
        rounding = (want.to(got.dtype).double() - want).norm()
        assert (got.double() - want).norm() <= 1.01 * rounding + 1e-5 * (want - base).norm()
    assert sink.tensor("w3").shape == (0,)


def test_budget_pieces_threads_and_passes_change_no_byte() -> None:
    plan = model([150_000, 20, 7000, 64_000], dtypes=(torch.bfloat16,))
    reference = run(plan, cut(plan), workers=1)
    for budget, piece, workers in ((2**20, 2**15, 1), (2**19, 2**17, 3), (2**24, 2**20, 4)):
        other = run(plan, cut(plan, budget, piece_bytes=piece), workers=workers)
        for key, data in reference.results.items():
            assert torch.equal(other.results[key], data)
        for name, statistics in reference.statistics.items():
            assert np.array_equal(other.statistics[name].gram, statistics.gram)


def test_several_targets_come_from_one_reading() -> None:
    plan = model([30_000], targets=(6.0, 50.0, 500.0))
    schedule = cut(plan)
    sink = run(plan, schedule)
    assert sum(s.bytes_read for s in plan.sources) == schedule.read_bytes  # type: ignore[attr-defined]
    for target, step in enumerate((6.0, 50.0, 500.0)):
        single = model([30_000], targets=(step,))
        assert torch.equal(sink.tensor("w0", target), run(single, cut(single)).tensor("w0"))


def test_known_gram_matrices_save_the_first_pass_and_change_no_byte() -> None:
    plan = model([150_000, 50])
    first = run(plan, cut(plan, combine=False))
    assert all((data == 0xAA).all() for data in first.results.values()), "nothing is written"
    schedule = cut(plan, 2**20, gram=False)
    assert not schedule.twice
    again = run(plan, schedule, known=first.statistics)
    whole = run(plan, cut(plan))
    for key, data in whole.results.items():
        assert torch.equal(again.results[key], data)


def test_a_gpu_that_runs_out_of_memory_gets_smaller_parts_and_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = model([90_000])
    whole = run(plan, cut(plan), workers=1)
    sizes: list[int] = []
    real = rows.view

    def on_a_small_device(*arguments: object) -> object:
        columns = arguments[2]
        assert isinstance(columns, slice)
        sizes.append(columns.stop - columns.start)
        if sizes[-1] > 2048:
            raise torch.OutOfMemoryError("CUDA out of memory (a stand-in)")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(rows, "view", on_a_small_device)
    span = 16_000
    schedule = cut(plan, span=span, piece_bytes=2**22)
    sink = MemorySink(plan)
    cpu = torch.device("cpu")
    Engine(plan, schedule, sink, span=span, device=cpu, workers=1, progress=lambda n: None).run()
    assert max(sizes) > 2048
    assert sizes.count(max(sizes)) == 1, "it shrinks once, not for every span"
    assert torch.allclose(sink.tensor("w0"), whole.tensor("w0"), atol=1e-5)


def test_a_gpu_without_room_for_anything_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory (a stand-in)")

    monkeypatch.setattr(rows, "view", full)
    plan = model([5000])
    with pytest.raises(torch.OutOfMemoryError):
        run(plan, cut(plan))


def test_a_budget_that_holds_no_two_chunks_is_refused_with_the_size_it_takes() -> None:
    with pytest.raises(RelexError, match=r"memory budget of 1,000 bytes is too small.*--memory-b"):
        cut(model([5000]), budget=1000)


@pytest.mark.parametrize(("row", "value"), [(0, np.inf), (3, np.nan), (5, -np.inf)])
def test_nan_and_inf_name_checkpoint_and_tensor(row: int, value: float) -> None:
    plan = model([9000, 7000])
    source = plan.sources[row]
    source.values["w1"][6999] = value  # type: ignore[attr-defined]
    with pytest.raises(RelexError, match=rf"^{source.label}: w1 holds NaN or Inf"):
        run(plan, cut(plan))


def test_an_error_of_a_source_or_a_sink_is_the_error_of_the_run() -> None:
    class Failing(MemorySource):
        def read(self, reads: Sequence[Read]) -> None:
            raise RelexError("the cable is out")

    plan = model([60_000, 2000])
    failing = Failing("step_3", plan.sources[3].values)  # type: ignore[attr-defined]
    sources = (*plan.sources[:3], failing, *plan.sources[4:])
    broken = ModelPlan(sources, plan.steps, 1, plan.tensors)
    with pytest.raises(RelexError, match="the cable is out"):
        run(broken, cut(broken))

    class FullDisk(MemorySink):
        def write(self, target: int, tensor: int, start: int, data: memoryview) -> None:
            raise RelexError("the disk is full")

    with pytest.raises(RelexError, match="the disk is full"):
        Engine(
            plan, cut(plan), FullDisk(plan), span=SPAN, device=torch.device("cpu"), workers=2,
            progress=lambda n: None,
        ).run()  # fmt: skip
    assert not [t for t in threading.enumerate() if t.name.startswith("relex-")]


def test_the_number_of_torch_threads_is_as_before() -> None:
    before = torch.get_num_threads()
    plan = model([2000])
    run(plan, cut(plan))
    assert torch.get_num_threads() == before


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_cpu_and_gpu_agree_to_the_rounding_of_float32(dtype: torch.dtype) -> None:
    plan = model([300_000, 1000], dtypes=(dtype,))
    sink = MemorySink(plan)
    cuda = torch.device("cuda")
    Engine(plan, cut(plan), sink, span=SPAN, device=cuda, workers=2, progress=lambda n: None).run()
    on_cpu = run(plan, cut(plan))
    for tensor in plan.tensors:
        base = plan.sources[0].values[tensor.name].float()  # type: ignore[attr-defined]
        a, b = sink.tensor(tensor.name).float(), on_cpu.tensor(tensor.name).float()
        step = torch.finfo(dtype).eps if dtype != torch.float32 else 1e-5
        assert (a - b).norm() <= step * (b - base).norm()
