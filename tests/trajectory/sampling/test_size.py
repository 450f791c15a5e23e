"""What a user may write for the size of a sample."""

from __future__ import annotations

import pytest

from relex_merge.errors import RelexError
from relex_merge.trajectory.sampling.size import SampleSize, read_sample_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0.5%", SampleSize(0.005)),
        ("100 %", SampleSize(1.0)),
        ("64M", SampleSize(None, 64_000_000)),
        ("1500", SampleSize(None, 1500)),
        ("auto", SampleSize(0.005, grows=True, most=0.05)),
        ("auto:2%", SampleSize(0.005, grows=True, most=0.02)),
        ("auto:0.1%", SampleSize(0.001, grows=True, most=0.001)),
        ("all", None),
    ],
)
def test_sizes(text: str, size: SampleSize | None) -> None:
    assert read_sample_size(text) == size


@pytest.mark.parametrize("text", ["", "0%", "101%", "-1%", "0", "some", "auto:3", "5G%"])
def test_what_is_no_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(RelexError, match=r"^--sample .*: give a share \(0\.5%\)"):
        read_sample_size(text)


def test_no_more_than_all_numbers_are_wanted() -> None:
    assert SampleSize(None, 500).numbers(100) == 100
    assert SampleSize(0.25).numbers(100) == 25
