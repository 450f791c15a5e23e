"""The parser of safetensors headers against the format's own library."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open

from relex_merge.errors import RelexError
from relex_merge.weights.folder import open_folder
from tests.support.header_mutations import costly_files, mutated_files

FILES = 1500
SLOWEST = 1.0  # seconds of processor time for one file
# What this package refuses although the library accepts it: keys that the format does not know,
# names that occur twice, spaces before the header, more dimensions than torch has, and dtypes that
# no arithmetic is done in. Everything else that is accepted must be taken.
STRICTER = (
    "other properties than",
    "occurs twice",
    "does not begin with",
    "dimensions",
    "packed or quantized",
)


def library_accepts(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # no mapping
                file.get_slice(name).get_shape()
    except (SafetensorError, OSError):
        return False
    return True


def judge(path: Path, content: bytes) -> tuple[bool, str | None]:
    """Return whether the library accepts a file, and what this package says against it."""
    path.write_bytes(content)
    start = time.process_time()
    said = None
    try:
        open_folder(path.parent, "the model")
    except RelexError as error:
        said = str(error)
    assert time.process_time() - start < SLOWEST
    return library_accepts(path), said


def compare(files: Iterator[tuple[str, bytes]], path: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    for name, content in files:
        accepted, said = judge(path, content)
        if said is None:
            assert accepted, f"{name}: accepted, and the library refuses it"
        else:
            assert str(path) in said or "packed or quantized" in said, name
            assert len(said) < 1000, name
            assert said.isprintable(), name
            assert not accepted or any(word in said for word in STRICTER), f"{name}: {said}"
        counts["accepted" if said is None else "refused"] += 1
    return counts


def test_nothing_is_accepted_that_the_library_refuses(tmp_path: Path) -> None:
    counts = compare(mutated_files(0, FILES), tmp_path / "model.safetensors")
    assert counts["accepted"] > FILES / 20, "good files are among them"
    assert counts["refused"] > FILES / 2


def test_headers_of_megabytes_take_less_than_a_second(tmp_path: Path) -> None:
    assert compare(costly_files(), tmp_path / "model.safetensors")["refused"]


def test_the_mutations_are_the_same_for_the_same_seed() -> None:
    assert list(mutated_files(3, 40)) == list(mutated_files(3, 40))
    assert list(mutated_files(3, 40)) != list(mutated_files(4, 40))
