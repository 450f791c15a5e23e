"""The bits of a sum depend on how many cores share it: each thread of the engine takes one."""

from __future__ import annotations

import pytest
import torch

from relex_merge.engine.threads import compute_pool, single_threaded


@pytest.mark.parametrize("n", [512, 1024, 2048, 32_768])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_product_has_the_same_bits_in_every_thread(n: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    D = torch.randn(24, n, dtype=dtype, generator=generator)

    def product() -> bytes:
        return bytes((D @ D.T).numpy().data)

    before = torch.get_num_threads()
    with single_threaded():
        torch.set_num_threads(1)
        expected = product()
        for _ in range(3):  # new threads each time
            with compute_pool(2, "test") as pool:
                found = [pool.submit(product) for _ in range(4)]
            assert {task.result() for task in found} == {expected}
    assert torch.get_num_threads() == before
