"""Many checkpoints, shards and targets under a small limit on open files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import torch

from relex_merge.weights.folder import open_folder
from relex_merge.weights.source import Source, TensorInfo, read_numbers
from relex_merge.weights.writer import KEPT_OPEN, ShardFile, layout
from tests.support.models import write_weights

resource = pytest.importorskip("resource")
FOLDERS = 100


def open_now() -> int:
    return int(psutil.Process().num_fds())


@pytest.fixture
def few_files() -> Iterator[None]:
    """As under ``ulimit -n 64``, where Python and torch have a dozen files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now() + 52, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_files")
@pytest.mark.parametrize("kind", ["shards", "bin"])
def test_a_hundred_checkpoints_are_open_without_an_open_file(kind: str, tmp_path: Path) -> None:
    state = {f"w{i}": torch.full((5,), float(i)) for i in range(6)}
    (tmp_path / "0").mkdir()
    if kind == "bin":
        torch.save(state, tmp_path / "0/pytorch_model.bin")
    else:
        write_weights(tmp_path / "0", state, shards=3)
    for i in range(1, FOLDERS):
        shutil.copytree(tmp_path / "0", tmp_path / f"{i}", copy_function=os.link)
    before = open_now()

    def total(source: Source) -> float:
        return sum(float(read_numbers(source, name, 0, 5)[4]) for name in source.tensors)

    with ThreadPoolExecutor(16) as pool:
        sources = list(pool.map(lambda i: open_folder(tmp_path / f"{i}", "m"), range(FOLDERS)))
        assert open_now() == before
        assert set(pool.map(total, sources)) == {15.0}
    assert open_now() == before


@pytest.mark.usefixtures("few_files")
def test_more_files_are_written_at_a_time_than_may_be_open(tmp_path: Path) -> None:
    before = open_now()
    shard = layout("model.safetensors", {"w": TensorInfo(torch.float32, (4,))})
    folders = [tmp_path / f"{i}" for i in range(FOLDERS)]
    for folder in folders:
        folder.mkdir()
    for _ in range(2):  # what was closed makes room again
        files = [ShardFile(folder, shard) for folder in folders]
        assert open_now() <= before + KEPT_OPEN
        for i, file in enumerate(files):
            raw = torch.tensor([0.0, 1.0, 2.0, i]).view(torch.uint8).numpy().data
            file.write("w", 8, raw[8:])
            file.write("w", 0, raw[:8])
            file.sync()
        for file in files:
            file.close()
            file.close()
        assert open_now() == before
    for i, folder in enumerate(folders):
        assert read_numbers(open_folder(folder, "m"), "w", 0, 4).tolist() == [0.0, 1.0, 2.0, i]
