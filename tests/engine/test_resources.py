"""What a machine or a container can spare, and what is said when that was not enough."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import psutil
import pytest
import torch
from mergekit.options import MergeOptions

from relex_merge.engine import resources
from relex_merge.engine.memory_limits import free_memory, left_in_cgroup, memory_errors
from relex_merge.engine.resources import LARGEST_DEFAULT, available
from relex_merge.errors import RelexError
from tests.support.models import Series, write_recipe
from tests.support.terminal import Command

GB = 2**30


def cgroup(folder: Path, limit: str, used: int, cache: int, version: int = 2) -> None:
    """The files of a control group, as the kernel shows them."""
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {cache}\nactive_file 5\n")


def membership(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "membership"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_container_of_version_2_has_what_its_limit_leaves(tmp_path: Path) -> None:
    cgroup(tmp_path / "fs", str(8 * GB), 3 * GB, 1 * GB)
    assert left_in_cgroup(tmp_path / "fs", membership(tmp_path, "0::/")) == 6 * GB


def test_the_tightest_of_all_groups_above_counts(tmp_path: Path) -> None:
    cgroup(tmp_path / "fs/a", str(4 * GB), 3 * GB, 0)
    cgroup(tmp_path / "fs/a/b", "max", 1 * GB, 0)
    cgroup(tmp_path / "fs/a/b/c", str(2 * GB), GB // 2, 0)
    there = membership(tmp_path, "0::/a/b/c")
    assert left_in_cgroup(tmp_path / "fs", there) == 1 * GB


def test_a_container_of_version_1_whose_path_is_the_hosts(tmp_path: Path) -> None:
    cgroup(tmp_path / "fs/memory", str(2 * GB), GB, GB // 4, version=1)
    there = membership(tmp_path, "5:cpu,cpuacct:/docker/12ab", "4:memory:/docker/12ab", "0::/x")
    assert left_in_cgroup(tmp_path / "fs", there) == GB + GB // 4


@pytest.mark.parametrize("limit", ["max", "nonsense"])
def test_no_limit_is_none(limit: str, tmp_path: Path) -> None:
    cgroup(tmp_path / "fs", limit, GB, 0)
    assert left_in_cgroup(tmp_path / "fs", membership(tmp_path, "0::/")) is None
    assert left_in_cgroup(tmp_path / "gone", membership(tmp_path, "0::/")) is None
    assert left_in_cgroup(tmp_path / "fs", tmp_path / "no such file") is None


def test_a_group_that_is_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    cgroup(tmp_path / "fs", str(GB), 2 * GB, 0)
    assert left_in_cgroup(tmp_path / "fs", membership(tmp_path, "0::/")) == 0


def test_the_default_budget_is_a_quarter_of_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cgroup(tmp_path / "fs", str(GB), GB // 2, 0)
    there = membership(tmp_path, "0::/")
    assert free_memory(tmp_path / "fs", there) == min(GB // 2, psutil.virtual_memory().available)
    assert 0 < free_memory() <= psutil.virtual_memory().total
    monkeypatch.setattr(resources, "free_memory", lambda: GB // 2)
    assert available(MergeOptions(), None).budget == GB // 8
    assert available(MergeOptions(), 12345).budget == 12345
    monkeypatch.setattr(resources, "free_memory", lambda: 400 * GB)
    assert available(MergeOptions(), None).budget == LARGEST_DEFAULT


@pytest.mark.parametrize("number", [-3, 0])
def test_a_number_of_threads_that_is_none(
    number: int, relex: Command, series: Series, tmp_path: Path
) -> None:
    with pytest.raises(RelexError, match=f"--num-threads is {number}"):
        available(MergeOptions(num_threads=number), None)
    path = write_recipe(tmp_path / "r.yml", series.recipe())
    done = relex("run", "--yes", path, tmp_path / "out", "--num-threads", str(number))
    assert done.code == 2
    assert f"{number} is not in the range x>=1" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("can't start new thread"),
    ],
    ids=str,
)
def test_a_failed_allocation_names_the_budget(error: Exception) -> None:
    with pytest.raises(RelexError, match="--memory-budget"), memory_errors():
        raise error
    with pytest.raises(RelexError, match="--device"), memory_errors():
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_other_errors_stay_what_they_are() -> None:
    for error in (OSError(errno.ENOENT, "x"), RuntimeError("shapes differ"), RelexError("x")):
        with pytest.raises(type(error)) as caught, memory_errors():
            raise error
        assert caught.value is error
