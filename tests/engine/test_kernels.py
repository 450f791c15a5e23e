"""The two loops over a tensor's numbers, against float64 arithmetic on explicit tensors."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from relex_merge.engine import kernels
from relex_merge.trajectory.parameters import Parameters

FLOATS = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
HALF_ULP = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 2.0**-24}
CHUNK = kernels.chunk_length(3, torch.device("cpu"))
SIZES = [0, 1, 7, 1024, kernels.SMALL, kernels.SMALL + 1, CHUNK - 1, CHUNK, CHUNK + 1]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Torch's threads wait for each other after every chunk, which is slow on busy cores."""
    previous = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(previous)


on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def series(T: int, n: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """(T + 1, n): a base of size 1 and T checkpoints that drift away from it by 0.1 a step."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(T + 2, n, generator=generator)
    t = torch.arange(T + 1)[:, None]
    return (noise[0] + 0.1 * t * noise[1] + 0.03 * (t > 0) * noise[1:]).to(dtype)


def exact_deltas(rows: kernels.Rows) -> torch.Tensor:
    """(T, n) float64."""
    return torch.stack([row.double() - rows[0].double() for row in rows[1:]])


def exact_combination(rows: kernels.Rows, W: torch.Tensor) -> torch.Tensor:
    """(K, n) float64."""
    return rows[0].double() + W.double() @ exact_deltas(rows)


def combine(
    rows: kernels.Rows, W: torch.Tensor, out_dtype: torch.dtype, compute: torch.dtype
) -> torch.Tensor:
    """(K, n) of ``out_dtype``; starts from garbage, so that a number left out shows."""
    out = torch.full((len(W), rows[0].numel()), 777.0, dtype=out_dtype)
    kernels.combine(rows, W, list(out), compute)
    return out


def assert_gram(rows: kernels.Rows, compute: torch.dtype) -> None:
    statistics = kernels.accumulate(rows, compute)
    D, base = exact_deltas(rows), rows[0].double()
    G = (D @ D.T).numpy()
    tolerance = 1e-13 if compute == torch.float64 else 1e-6
    # The norm's sum has n terms of one sign, which float32 adds up in blocks.
    np.testing.assert_allclose(statistics.gram, G, rtol=0, atol=tolerance * np.trace(G))
    assert statistics.gram.dtype == np.float64
    norm = float(base @ base)
    assert statistics.base_squared_norm == pytest.approx(norm, rel=tolerance)
    assert statistics.moved == int((rows[-1].double() != rows[0].double()).sum())
    assert statistics.numel == rows[0].numel()


# --- both loops against float64 --------------------------------------------------------------


@pytest.mark.parametrize("compute", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", SIZES)
def test_the_gram_matrix_is_that_of_the_explicit_deltas_at_every_size(
    n: int, compute: torch.dtype
) -> None:
    assert_gram(series(3, n), compute)


@pytest.mark.parametrize("compute", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", SIZES)
def test_the_combination_is_that_of_the_explicit_deltas_at_every_size(
    n: int, compute: torch.dtype
) -> None:
    rows, W = series(3, n), torch.tensor([[0.3, -1.2, 4.0]], dtype=torch.float64)
    torch.testing.assert_close(
        combine(rows, W, torch.float64, compute),
        exact_combination(rows, W),
        rtol=0,
        atol=1e-13 if compute == torch.float64 else 1e-5,
    )


@pytest.mark.parametrize("dtype", FLOATS)
def test_deltas_of_every_dtype_are_exact_before_they_are_summed(dtype: torch.dtype) -> None:
    rows = series(4, 3000, dtype)
    assert_gram(rows, kernels.compute_dtype(rows, 3000))


def test_checkpoints_may_differ_in_dtype_from_the_base_and_from_each_other() -> None:
    values = series(4, 3000)
    dtypes = [torch.bfloat16, torch.float32, torch.float16, torch.float64, torch.bfloat16]
    rows = [row.to(dtype) for row, dtype in zip(values, dtypes, strict=True)]
    W = torch.tensor([[0.3, -1.2, 4.0, 2.0]], dtype=torch.float64)
    assert_gram(rows, torch.float64)
    assert_gram(rows, torch.float32)
    exact = exact_combination(rows, W)
    torch.testing.assert_close(combine(rows, W, torch.float64, torch.float64), exact)


@pytest.mark.parametrize("out_dtype", list(HALF_ULP))
@pytest.mark.parametrize("dtype", FLOATS[:3])
def test_the_result_is_rounded_once(dtype: torch.dtype, out_dtype: torch.dtype) -> None:
    rows, W = series(3, 5000, dtype), torch.tensor([[0.5, -1.0, 3.0]])
    exact = exact_combination(rows, W)
    error = (combine(rows, W, out_dtype, torch.float64).double() - exact).abs()
    assert (error <= HALF_ULP[out_dtype] * exact.abs() * (1 + 1e-9) + 1e-8).all()


@pytest.mark.parametrize("compute", [torch.float32, torch.float64])
def test_one_tensor_and_a_sequence_of_rows_give_the_same_bits(compute: torch.dtype) -> None:
    rows, W = series(3, CHUNK + 5, torch.bfloat16), torch.tensor([[0.5, -1.0, 3.0]])
    table, sequence = kernels.accumulate(rows, compute), kernels.accumulate(list(rows), compute)
    assert table.gram.tolist() == sequence.gram.tolist()
    assert (table.base_squared_norm, table.moved) == (sequence.base_squared_norm, sequence.moved)
    out = [combine(r, W, torch.float32, compute) for r in (rows, list(rows))]
    assert torch.equal(*out)


def test_several_weight_vectors_share_one_pass_and_do_not_mix() -> None:
    rows, W = series(3, CHUNK + 5), torch.randn(4, 3, dtype=torch.float64)
    together = combine(rows, W, torch.float64, torch.float64)
    for k in range(4):
        alone = combine(rows, W[k : k + 1], torch.float64, torch.float64)[0]
        torch.testing.assert_close(together[k], alone, rtol=0, atol=1e-13)
    torch.testing.assert_close(together, exact_combination(rows, W), rtol=0, atol=1e-12)


def test_targets_of_one_pass_may_differ_in_dtype() -> None:
    rows, W = series(3, 100), torch.randn(2, 3, dtype=torch.float64)
    out = [torch.empty(100, dtype=torch.bfloat16), torch.empty(100, dtype=torch.float64)]
    kernels.combine(rows, W, out, torch.float64)
    exact = exact_combination(rows, W)
    assert torch.equal(out[0], exact[0].to(torch.bfloat16))
    torch.testing.assert_close(out[1], exact[1])


@pytest.mark.parametrize("T", [1, 2, 300])
def test_any_number_of_checkpoints(T: int) -> None:
    rows, W = series(T, 2000), torch.randn(1, T, dtype=torch.float64)
    assert_gram(rows, torch.float64)
    exact = exact_combination(rows, W)
    torch.testing.assert_close(combine(rows, W, torch.float64, torch.float64), exact)


def test_the_combination_leaves_the_checkpoints_as_they_were() -> None:
    rows = series(3, CHUNK + 5, torch.float64)
    before = rows.clone()
    kernels.accumulate(rows, torch.float64)
    combine(rows, torch.ones(1, 3), torch.float64, torch.float64)
    assert torch.equal(rows, before)


@pytest.mark.parametrize("T", [2, 5, 6, 7, 9, 11, 97, 101])
@pytest.mark.parametrize("compute", [torch.float32, torch.float64])
def test_the_gram_matrix_equals_its_transpose_to_the_last_bit(T: int, compute: torch.dtype) -> None:
    rows = series(T, 512 * 300 + 13)  # of 6 or 7 rows D @ D.T is not symmetric in float32
    G = kernels.accumulate(rows, compute).gram
    assert np.array_equal(G, G.T)
    D = exact_deltas(rows)
    np.testing.assert_allclose(G, (D @ D.T).numpy(), rtol=0, atol=1e-6 * np.trace(G))


def test_the_half_below_the_diagonal_is_what_the_plain_product_gives() -> None:
    D = series(7, 32_768)[1:]
    assert torch.equal(kernels.self_product(D).tril(), (D @ D.T).tril())


# --- bit for bit -----------------------------------------------------------------------------


@pytest.mark.parametrize("compute", [torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_weight_row_of_zeros_returns_the_base_bit_for_bit(
    dtype: torch.dtype, compute: torch.dtype
) -> None:
    rows = series(3, CHUNK + 5, dtype)
    rows[0, ::3] = -0.0
    rows[0, 1::3] *= torch.finfo(dtype).tiny  # subnormal numbers too
    W = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    still = combine(rows, W, dtype, compute)[1]
    assert torch.equal(still.view(torch.uint8), rows[0].view(torch.uint8))


def test_the_same_input_gives_the_same_bits_every_time() -> None:
    rows, W = series(5, 300_000), torch.randn(2, 5, dtype=torch.float64)
    grams = [kernels.accumulate(rows.clone(), torch.float32).gram.tolist() for _ in range(4)]
    outs = [combine(rows.clone(), W, torch.bfloat16, torch.float32) for _ in range(4)]
    assert all(gram == grams[0] for gram in grams)
    assert all(torch.equal(out, outs[0]) for out in outs)


def test_the_number_of_threads_changes_rounding_only() -> None:
    rows, W = series(5, 300_000), torch.randn(2, 5, dtype=torch.float64)
    grams, outs = [], []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        grams.append(kernels.accumulate(rows, torch.float32).gram)
        outs.append(combine(rows, W, torch.float32, torch.float32))
    for product, out in zip(grams[1:], outs[1:], strict=True):
        np.testing.assert_allclose(product, grams[0], rtol=0, atol=1e-6 * np.trace(grams[0]))
        torch.testing.assert_close(out, outs[0], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("length", [1, 5, 1000, 4096, 10**9])
def test_the_length_of_a_chunk_changes_rounding_only(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, W = series(3, 4096), torch.tensor([[0.5, -1.0, 3.0]], dtype=torch.float64)
    monkeypatch.setattr(kernels, "chunk_length", lambda T, device: length)
    assert_gram(rows, torch.float64)
    exact = exact_combination(rows, W)
    out = combine(rows, W, torch.float64, torch.float64)
    torch.testing.assert_close(out, exact, rtol=0, atol=1e-13)


# --- faults ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("compute", [torch.float32, torch.float64])
@pytest.mark.parametrize("position", [0, CHUNK + 1])
def test_a_number_that_is_not_finite_marks_the_row_of_its_checkpoint_alone(
    bad: float, compute: torch.dtype, position: int
) -> None:
    rows = series(3, CHUNK + 5)
    rows[2, position] = bad
    finite = np.isfinite(kernels.accumulate(rows, compute).gram)
    assert finite.tolist() == [[True, False, True], [False, False, False], [True, False, True]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_base_that_is_not_finite_marks_every_row_and_its_own_norm(bad: float) -> None:
    rows = series(3, CHUNK + 5)
    rows[0, 17] = bad
    statistics = kernels.accumulate(rows, torch.float32)
    assert not np.isfinite(statistics.gram).any()
    assert not np.isfinite(statistics.base_squared_norm)


# --- precision and memory --------------------------------------------------------------------


def test_small_tensors_and_float64_ones_are_float64_throughout() -> None:
    narrow, wide = series(2, 4, torch.bfloat16), series(2, 4, torch.float64)
    mixed = [narrow[0], wide[1], narrow[2]]
    assert kernels.compute_dtype(narrow, kernels.SMALL) == torch.float64
    assert kernels.compute_dtype(narrow, kernels.SMALL + 1) == torch.float32
    assert kernels.compute_dtype(mixed, kernels.SMALL + 1) == torch.float64


def test_float32_products_are_ieee_inside_and_as_before_outside() -> None:
    previous = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with kernels.ieee_float32():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(previous)


def small_updates(T: int, d: int) -> list[torch.Tensor]:
    """A bf16 base of size 0.02 and T float32 checkpoints whose deltas grow to about 1e-4."""
    generator = torch.Generator().manual_seed(0)
    base = (0.02 * torch.randn(d, generator=generator)).to(torch.bfloat16)
    direction, noise = torch.randn(2, d, generator=generator) * 1e-4
    rows = [base]
    for t in range(1, T + 1):
        wobble = 0.1 * noise.roll(7919 * t)
        rows.append(base.float().add_(direction, alpha=t / T).add_(wobble))
    return rows


def test_the_predicted_delta_of_a_large_tensor_is_within_1e_5_of_float64() -> None:
    T, d, target = 40, 2_000_000, 60.0
    rows, steps = small_updates(T, d), np.arange(1.0, T + 1)
    with kernels.ieee_float32():
        G = kernels.accumulate(rows, torch.float32).gram
        w = Parameters(target).weights(G, steps)
        out = torch.empty(d)
        kernels.combine(rows, torch.from_numpy(w)[None], [out], torch.float32)

    pieces = [[row[i : i + 50_000] for row in rows] for i in range(0, d, 50_000)]
    exact_gram = torch.zeros(T, T, dtype=torch.float64)
    for piece in pieces:
        D = exact_deltas(piece)
        exact_gram += D @ D.T
    eigenvalues, vectors = np.linalg.eigh(exact_gram.numpy())
    sigma, u = np.sqrt(eigenvalues[-1]), vectors[:, -1]
    coefficient = np.polyval(np.polyfit(steps, sigma * u, 1), target)
    exact_w = torch.from_numpy(coefficient / sigma * u)
    exact = torch.cat([exact_w @ exact_deltas(piece) for piece in pieces])
    error = (out.double() - rows[0].double() - exact).norm() / exact.norm()
    # Measured 3.4e-6, and as much is lost by writing the exact result as float32.
    assert error < 1e-5


MEMORY = """
import re
from pathlib import Path

import torch

from relex_merge.engine import kernels


def peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) // 1024


def both(T: int, n: int) -> None:
    row = torch.ones(1, dtype=torch.bfloat16).expand(n)
    for rows in ([row] * (T + 1), row.expand(T + 1, n)):
        kernels.accumulate(rows, torch.float32)
        kernels.combine(rows, torch.ones(1, T), [out[:n]], torch.float32)


torch.set_num_threads(1)
out = torch.ones(4_000_000, dtype=torch.bfloat16)
both(8, 30_000)
before = peak()
both(8, 4_000_000)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own figure")
def test_memory_is_bounded_by_the_chunk_and_not_by_the_checkpoints() -> None:
    # Each row is a view of one number, so that only what the loops allocate themselves counts, a
    # few chunks of 1 MB; one row in float32 is 15 MB, the series in bfloat16 61 MB.
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEMORY)], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) < 8


# --- GPU -------------------------------------------------------------------------------------


@pytest.mark.gpu
@on_cuda
@pytest.mark.parametrize("dtype", FLOATS)
def test_the_gpu_agrees_with_the_cpu_to_1e_5_of_the_delta(dtype: torch.dtype) -> None:
    rows, steps = series(8, 1_000_000, dtype), np.arange(1.0, 9.0)
    compute = kernels.compute_dtype(rows, rows.shape[1])
    deltas = []
    for device in ("cpu", "cuda"):
        there = rows.to(device)
        with kernels.ieee_float32():
            G = kernels.accumulate(there, compute).gram
            w = Parameters(50.0).weights(G, steps)
            out = torch.empty(rows.shape[1], dtype=compute, device=device)
            kernels.combine(there, torch.from_numpy(w)[None], [out], compute)
        deltas.append(out.cpu().double() - rows[0].double())
    assert (deltas[0] - deltas[1]).norm() < 1e-5 * deltas[0].norm()
