"""Models in memory that the tests of this room share. Not to be changed by a test."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from relex_merge.evaluation.tokens import load_tokenizer
from tests.support.models import Series


def load(folder: Any) -> Any:
    """The model in a folder, float32, in evaluation mode."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()


@pytest.fixture(scope="session")
def tokenizer(series: Series) -> Any:
    return load_tokenizer(series.base)


@pytest.fixture(scope="session")
def base(series: Series) -> Any:
    """A tiny Qwen2 with random weights."""
    return load(series.base)


@pytest.fixture(scope="session")
def last(series: Series) -> Any:
    """Its last checkpoint."""
    return load(series.checkpoints[-1])


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """At this size two threads are slower, and far slower on a busy machine."""
    torch.set_num_threads(1)
