"""Truncation to a rank is optimal in the Frobenius norm, exact or by block Krylov iteration."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relex_merge.engine import truncated_svd
from relex_merge.engine.truncated_svd import Truncated, truncate_matrix, truncate_product


def optimum(D: torch.Tensor, rank: int) -> float:
    """‖D − D_r‖² of the best D_r, by numpy's SVD in float64."""
    S = np.linalg.svd(D.double().numpy(), compute_uv=False)
    return float((S[rank:] ** 2).sum())


def loss(D: torch.Tensor, found: Truncated) -> float:
    return float(((found.B.double() @ found.A.double() - D.double()) ** 2).sum())


def draw(m: int, n: int, R: int, decay: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors (m, R), (R, n) of a product whose singular values fall off."""
    g = torch.Generator().manual_seed(seed)
    L = torch.randn(m, R, generator=g) * decay ** torch.arange(R)
    return L, torch.randn(R, n, generator=g)


@settings(max_examples=30, deadline=None)
@given(
    m=st.integers(1, 30),
    n=st.integers(1, 30),
    R=st.integers(1, 40),
    rank=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_small_products_are_truncated_at_the_optimum(
    m: int, n: int, R: int, rank: int, seed: int
) -> None:
    L, A = draw(m, n, R, 0.9, seed)
    D = L.double() @ A.double()
    total = float((D**2).sum())
    found = truncate_product(L, A, rank)
    assert found.A.shape == (rank, n)
    assert found.B.shape == (m, rank)
    assert loss(D, found) <= optimum(D, rank) + 1e-12 * total
    assert found.kept == pytest.approx(total - optimum(D, rank), rel=1e-9)
    assert truncate_matrix(D, rank).kept == pytest.approx(found.kept, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("decay", [0.8, 0.98, 1.0])
def test_large_ones_reach_the_optimum_too(decay: float, dtype: torch.dtype) -> None:
    L, A = (part.to(dtype) for part in draw(500, 450, 440, decay))
    D = L.double() @ A.double()
    total, best = float((D**2).sum()), optimum(D, 16)
    for found in (truncate_product(L, A, 16), truncate_matrix((L @ A).to(dtype), 16)):
        # Without decay no direction matters more than its neighbours, and none is found exactly.
        slack = 1e-6 if decay < 1 else 1e-2
        assert loss(D, found) <= best + slack * total
        assert found.kept <= total - best + 1e-6 * total


def test_the_same_numbers_come_out_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    L, A = draw(500, 450, 440, 0.98)
    one, two = (truncate_product(L, A, 16) for _ in range(2))
    assert torch.equal(one.A, two.A)
    monkeypatch.setattr(truncated_svd, "LARGEST_CORE", 1000)
    exact = truncate_product(L, A, 16)
    assert exact.kept == pytest.approx(one.kept, rel=1e-6)


def test_an_update_of_zero_stays_zero() -> None:
    found = truncate_product(torch.zeros(8, 3), torch.randn(3, 9), 2)
    assert not found.B.any() or not (found.B @ found.A).any()
    assert found.kept == 0
