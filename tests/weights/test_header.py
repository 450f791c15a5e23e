"""The parser of safetensors headers against the format's own library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.support.header_judge import judge_header
from tests.support.header_mutations import costly_files, mutated_files

FILES = 1500


def compare(files: Iterator[tuple[str, bytes]], path: Path) -> Counter[str]:
    return Counter(
        "accepted" if judge_header(name, content, path) else "refused" for name, content in files
    )


def test_nothing_is_accepted_that_the_library_refuses(tmp_path: Path) -> None:
    counts = compare(mutated_files(0, FILES), tmp_path / "model.safetensors")
    assert counts["accepted"] > FILES / 20, "good files are among them"
    assert counts["refused"] > FILES / 2


def test_headers_of_megabytes_take_less_than_a_second(tmp_path: Path) -> None:
    assert compare(costly_files(), tmp_path / "model.safetensors")["refused"]


def test_the_mutations_are_the_same_for_the_same_seed() -> None:
    assert list(mutated_files(3, 40)) == list(mutated_files(3, 40))
    assert list(mutated_files(3, 40)) != list(mutated_files(4, 40))
