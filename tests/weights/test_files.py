"""Files that change while they are read, and what of a file may change without harm."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from relex_merge.weights import files
from relex_merge.weights.files import FileSource, SourceChangedError, fill
from relex_merge.weights.folder import open_folder
from relex_merge.weights.source import Read, read_numbers

NAME = "model.layers.0.weight"


def save(path: Path, value: float) -> None:
    """Write a file of one tensor in place; it is as long for every value."""
    tensors = {NAME: torch.full((1000,), value)}
    if path.suffix == ".bin":
        torch.save(tensors, path)
    else:
        path.write_bytes(safetensors.torch.save(tensors))


@pytest.fixture(params=["model.safetensors", "pytorch_model.bin"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / str(request.param)
    save(path, 1.0)
    return path


@pytest.fixture
def source(file: Path) -> FileSource:
    return open_folder(file.parent, "the model")


def rewrite_in_place(file: Path) -> None:
    save(file, 2.0)


def replace_by_another_of_the_same_time(file: Path) -> None:
    before = file.stat()
    other = file.with_name("other" + file.suffix)
    save(other, 2.0)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)


def cut_off(file: Path) -> None:
    os.truncate(file, 100)


@pytest.mark.parametrize("change", [rewrite_in_place, replace_by_another_of_the_same_time, cut_off])
def test_a_file_that_changed_is_named_when_it_is_read_and_when_it_is_asked_for(
    change: Callable[[Path], None], file: Path, source: FileSource
) -> None:
    source.check_unchanged()
    fingerprint = source.fingerprint()
    change(file)
    with pytest.raises(SourceChangedError, match=f"{file} changed"):
        read_numbers(source, NAME, 0, 1000)
    with pytest.raises(SourceChangedError, match=f"{file} changed"):
        source.check_unchanged()
    assert source.fingerprint() == fingerprint, "it is that of the files that were opened"
    if change is not cut_off:
        assert open_folder(file.parent, "the model").fingerprint() != fingerprint


def test_a_file_that_changes_while_it_is_read_is_noticed(
    file: Path, source: FileSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_meanwhile(stream: Any, into: memoryview) -> None:
        fill(stream, into)
        save(file, 2.0)

    monkeypatch.setattr(files, "fill", write_meanwhile)
    with pytest.raises(SourceChangedError, match=f"{file} changed"):
        read_numbers(source, NAME, 0, 1000)


def test_metadata_may_change(file: Path, source: FileSource) -> None:
    link = file.with_name("link")
    os.link(file, link)
    file.chmod(0o400)
    source.check_unchanged()
    link.unlink()
    assert read_numbers(source, NAME, 0, 1000).tolist() == [1.0] * 1000
    source.check_unchanged()
    assert source.fingerprint() == open_folder(file.parent, "the model").fingerprint()


def test_a_file_that_is_gone_is_an_error_only_when_it_is_read(
    file: Path, source: FileSource
) -> None:
    fingerprint = source.fingerprint()
    file.unlink()
    assert source.fingerprint() == fingerprint
    source.check_unchanged()
    with pytest.raises(SourceChangedError, match=f"{file} changed or vanished"):
        read_numbers(source, NAME, 0, 1)


def test_a_bin_file_of_the_same_size_and_time_is_told_by_its_checksums(tmp_path: Path) -> None:
    file = tmp_path / "pytorch_model.bin"
    save(file, 1.0)
    before, earlier = file.stat(), open_folder(tmp_path, "the model").fingerprint()
    save(file, 2.0)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert open_folder(tmp_path, "the model").fingerprint() != earlier


def test_reads_are_from_any_place_into_any_buffer(source: FileSource) -> None:
    buffers = [bytearray(8), bytearray(4)]
    source.read([Read(NAME, 4 * i, memoryview(b)) for i, b in zip((10, 999), buffers, strict=True)])
    assert torch.frombuffer(buffers[0] + buffers[1], dtype=torch.float32).tolist() == [1.0] * 3
