"""When training stops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from relex_merge import RelexError, StopWhen


@pytest.mark.parametrize(
    "given",
    [
        {"skill": "x"},
        {"skill": None},
        {"skill": True},
        {"skill": float("nan")},
        {"skill": 1},
        {"checkpoints": "3"},
        {"checkpoints": 2.5},
        {"checkpoints": 0},
    ],
)
def test_a_value_that_cannot_be_met_is_named(given: dict[str, Any]) -> None:
    ((name, value),) = given.items()
    with pytest.raises(RelexError, match=f"StopWhen: {name} is ") as caught:
        StopWhen(**given)
    assert str(value) in str(caught.value)


def test_numbers_of_other_libraries_are_numbers() -> None:
    StopWhen(skill=np.float32(0.5), checkpoints=np.int64(2))
