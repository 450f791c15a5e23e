"""Steps, sizes and numbers as text, and sizes from text."""

from __future__ import annotations

import math

import pytest

from relex_merge.formatting import cell, read_size, significant, size


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (5_600_000_000, "5.6 GB"), (10**16, "1e+04 TB")],
)
def test_sizes_are_written_in_powers_of_1000(nbytes: int, text: str) -> None:
    assert size(nbytes) == text


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("1048576", 2**20),
        ("500M", 500 * 2**20),
        ("2G", 2**31),
        ("1.5 GiB", 3 * 2**29),
        ("1kb", 2**10),
        ("much", None),
        ("-1G", None),
        ("", None),
    ],
)
def test_sizes_are_read_in_powers_of_1024(text: str, nbytes: int | None) -> None:
    assert read_size(text) == nbytes


def test_an_undefined_figure_is_a_dash_and_a_hopeless_one_has_no_digits() -> None:
    assert [cell(None, ".2f"), cell(-1e9, ".2f"), cell(1.5, ".1f"), cell(41.7, ".0f°")] == [
        "–",
        "<-99",
        "1.5",
        "42°",
    ]
    assert [significant(None), significant(math.inf), significant(0.98213)] == ["–", "–", "0.9821"]
