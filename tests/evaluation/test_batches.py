"""Batches shrink when memory runs out; other faults pass."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from relex_merge.errors import RelexError
from relex_merge.evaluation.batches import in_batches


class Hungry:
    """Doubles numbers; asks torch for an exabyte when a batch is larger than ``most``."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.sizes: list[int] = []

    def __call__(self, batch: Sequence[int]) -> list[int]:
        self.sizes.append(len(batch))
        if len(batch) > self.most:
            torch.empty(2**58)
        return [2 * item for item in batch]


def test_results_come_in_order() -> None:
    work = Hungry(10)
    assert in_batches(range(7), 3, work, name="m") == [0, 2, 4, 6, 8, 10, 12]
    assert work.sizes == [3, 3, 1]


def test_batches_are_halved_where_the_allocator_fails_and_stay_small() -> None:
    work = Hungry(2)
    assert in_batches(range(9), 8, work, name="m") == [2 * n for n in range(9)]
    assert work.sizes == [8, 4, 2, 2, 2, 2, 1]


def test_one_item_too_large_is_an_error_that_names_the_model() -> None:
    with pytest.raises(RelexError, match="step 9: out of memory with one sequence"):
        in_batches(range(4), 4, Hungry(0), name="step 9")


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")])
def test_all_kinds_of_exhaustion_count(error: Exception) -> None:
    def work(batch: Sequence[int]) -> Sequence[int]:
        if len(batch) > 1:
            raise error
        return batch

    assert in_batches(range(3), 3, work, name="m") == [0, 1, 2]


def test_other_faults_pass() -> None:
    def work(batch: Sequence[int]) -> Sequence[int]:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        in_batches(range(3), 3, work, name="m")
