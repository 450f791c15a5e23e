"""Length, truncation and repetition of responses, by hand."""

from __future__ import annotations

import pytest

from relex_merge.evaluation.responses import describe, repeated
from relex_merge.evaluation.tokens import Item


def test_repetition_by_hand() -> None:
    assert repeated([1, 2, 3]) == 0
    assert repeated([1, 2, 3, 4, 5]) == 0
    assert repeated([1, 1, 1, 1, 1, 1]) == pytest.approx(2 / 3)  # three 4-grams, all the same
    assert repeated([1, 2, 1, 2, 1, 2]) == pytest.approx(1 / 3)  # 1212 2121 1212


def test_means_are_over_responses_and_errors_over_prompts() -> None:
    responses = [
        Item((1,), (5, 6, 0), 0, ""),
        Item((1,), (5, 0), 0, ""),
        Item((2,), (7, 7, 7, 7, 7), 1, ""),
        Item((2,), (7, 8, 9, 7, 0), 1, ""),
    ]
    found = describe(responses, {0})
    assert found.responses == 4
    assert found.length.value == pytest.approx(15 / 4)
    assert found.truncated.value == pytest.approx(1 / 4)
    assert found.repetition.value == pytest.approx((0 + 0 + 1 / 2 + 0) / 4)
    # prompt means 2.5 and 5: their standard deviation over √2
    assert found.length.stderr == pytest.approx(2.5 / 2)


def test_one_prompt_has_no_standard_error() -> None:
    assert describe([Item((1,), (2,), 0, "")], set()).length.stderr is None
