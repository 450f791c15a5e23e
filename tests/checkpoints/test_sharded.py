"""Promises about checkpoints in shards that are not what they should be, and about what they are.

Nothing in a file is run, nothing is taken for whole that is not, and the message names the file.
"""

from __future__ import annotations

import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from relex_merge.checkpoints.files import NotWholeError
from relex_merge.checkpoints.inert import InertError, unpickle
from relex_merge.checkpoints.shard_file import read_shard_file, reader
from relex_merge.checkpoints.sharded import find_sharded
from relex_merge.errors import RelexError
from relex_merge.weights.sharded import open_sharded
from tests.support.archives import edit, records, write_archive
from tests.support.sharded_runs import ShardedRuns

RANK = "model_world_size_2_rank_{}.pt"
Break: TypeAlias = Callable[[Path], object]


@pytest.fixture
def actor(sharded_runs: ShardedRuns, tmp_path: Path) -> Path:
    """A checkpoint of two ranks that a test may break."""
    return Path(shutil.copytree(sharded_runs.checkpoint("fsdp2-2"), tmp_path / "actor"))


def opened(folder: Path) -> Any:
    """What a run does with a folder."""
    found = find_sharded(folder)
    assert found is not None
    found.check()
    return open_sharded(found, "the model")


class Touch:
    """An object whose unpickling writes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._path}",)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_would_run_a_command_is_refused_without_running_it(
    actor: Path, tmp_path: Path, protocol: int
) -> None:
    evil = pickle.dumps({"w": Touch(tmp_path / "written")}, protocol)
    edit(actor / RANK.format(0), lambda content: content.update({"data.pkl": evil}))
    with pytest.raises(NotWholeError, match=r"rank_0\.pt names (posix|nt)[. ]system.*nothing of"):
        opened(actor)
    (actor / RANK.format(0)).unlink()
    (actor / RANK.format(1)).unlink()
    (actor / ".metadata").write_bytes(evil)
    with pytest.raises(NotWholeError, match=r"\.metadata names (posix|nt)\.system.*nothing of it"):
        opened(actor)
    assert not (tmp_path / "written").exists()
    pickle.loads(evil)
    assert (tmp_path / "written").exists()  # it would have


def cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:count])


def compress(path: Path) -> None:
    write_archive(path, records(path), zipfile.ZIP_DEFLATED)


def swap_order(content: dict[str, bytes]) -> None:
    content["byteorder"] = b"big"


def drop(content: dict[str, bytes]) -> None:
    del content["data/0"]


def flip(content: dict[str, bytes]) -> None:
    content["data/0"] = bytes(byte ^ 1 for byte in content["data/0"])


def rename_world(folder: Path) -> None:
    (folder / RANK.format(0)).rename(folder / "model_world_size_1_rank_0.pt")
    (folder / RANK.format(1)).unlink()


def second_world(folder: Path) -> None:
    shutil.copy(folder / RANK.format(0), folder / "model_world_size_1_rank_0.pt")
    (folder / "fsdp_config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: cut(f / RANK.format(1), 3000), "rank_1.pt is cut off"),
        (lambda f: cut(f / RANK.format(0), 0), "rank_0.pt is cut off"),
        (lambda f: cut(f / RANK.format(0), -30), "rank_0.pt is cut off"),
        (lambda f: (f / RANK.format(1)).unlink(), "rank 1 of 2 missing: it is still being"),
        (lambda f: (f / RANK.format(0)).unlink(), "rank 0 of 2 missing"),
        (lambda f: compress(f / RANK.format(1)), "rank_1.pt is a compressed zip archive"),
        (lambda f: edit(f / RANK.format(1), swap_order), "rank_1.pt has its numbers in the other"),
        (rename_world, "those of 1 ranks, and fsdp_config.json says 2"),
        (second_world, "shards of 1, 2 ranks, and no fsdp_config.json"),
        (
            lambda f: shutil.copy(f / RANK.format(0), f / RANK.format(1)),
            "model.embed_tokens.weight: its parts have 512 of 1,024 numbers",
        ),
        (
            lambda f: edit(f / RANK.format(1), drop),
            "rank_1.pt does not hold all of its part",
        ),
        (lambda f: (f / RANK.format(0)).write_bytes(b"\x80" * 5000), "rank_0.pt is cut off"),
    ],
)
def test_ranks_that_are_not_whole_are_refused_by_name(
    actor: Path, damage: Break, said: str
) -> None:
    damage(actor)
    with pytest.raises((NotWholeError, RelexError)) as caught:
        opened(actor)
    assert said in str(caught.value)


def test_ranks_of_two_saves_are_not_put_together(
    sharded_runs: ShardedRuns, actor: Path, tmp_path: Path
) -> None:
    other = sharded_runs.checkpoint("fsdp2-3") / "model_world_size_3_rank_1.pt"
    shutil.copy(other, actor / RANK.format(1))
    with pytest.raises(RelexError, match="do not agree on how it is cut; the ranks of two saves"):
        opened(actor)
    shutil.copy(sharded_runs.checkpoint("sharded-2") / RANK.format(1), actor / RANK.format(1))
    with pytest.raises(RelexError, match="differs in kind or dtype among ranks; the ranks of two"):
        opened(actor)
    shutil.copy(sharded_runs.checkpoint("lora") / RANK.format(1), actor / RANK.format(1))
    with pytest.raises(RelexError, match="do not hold the same tensors: only the first has model"):
        opened(actor)
    copies = Path(shutil.copytree(sharded_runs.checkpoint("replicated"), tmp_path / "copies"))
    edit(copies / RANK.format(1), flip)
    with pytest.raises(RelexError, match=r"same part in .*rank_0\.pt and .*checksums differ; the"):
        opened(copies)


def test_an_earlier_world_size_in_the_folder_is_told_apart_by_what_verl_wrote(actor: Path) -> None:
    shutil.copy(actor / RANK.format(0), actor / "model_world_size_1_rank_0.pt")
    found = find_sharded(actor)
    assert found is not None
    assert found.files == (RANK.format(0), RANK.format(1))


def test_padding_other_than_torchs_is_read_all_the_same(
    sharded_runs: ShardedRuns, actor: Path
) -> None:
    import torch

    from relex_merge.weights.source import read_numbers

    edit(actor / RANK.format(0), lambda content: None)
    source = opened(actor)
    for name, tensor in sharded_runs.state().items():
        assert torch.equal(read_numbers(source, name, 0, tensor.numel()), tensor.reshape(-1))


@pytest.mark.parametrize(
    ("layout", "damage", "said"),
    [
        ("trainer-2", lambda f: cut(f / "__0_0.distcp", 4000), "__0_0.distcp is cut off: 4,000"),
        ("trainer-2", lambda f: (f / "__1_0.distcp").unlink(), "__1_0.distcp cannot be read"),
        ("trainer-2", lambda f: (f / ".metadata").unlink(), "which is written last: it is still"),
        ("trainer-2", lambda f: cut(f / ".metadata", 900), ".metadata is not what torch.distri"),
        ("hf-3", lambda f: next(f.glob("shard-00002*")).unlink(), "shard 2 of at least 3 is mis"),
        ("hf-3", lambda f: cut(next(f.glob("shard-00003*")), 900), "is truncated or corrupt"),
        ("full", lambda f: cut(f / "pytorch_model_fsdp.bin", 900), "fsdp.bin is cut off"),
    ],
)
def test_folders_of_dcp_that_are_not_whole_are_refused_by_name(
    sharded_runs: ShardedRuns, tmp_path: Path, layout: str, damage: Break, said: str
) -> None:
    folder = Path(shutil.copytree(sharded_runs.checkpoint(layout), tmp_path / "checkpoint-15"))
    inner = folder / "pytorch_model_fsdp_0"
    damage(inner if inner.is_dir() else folder)
    with pytest.raises((NotWholeError, RelexError)) as caught:
        opened(folder)
    assert said in str(caught.value)


def test_any_damage_to_a_pickle_is_refused_or_leaves_the_weights_as_they_are(
    sharded_runs: ShardedRuns, tmp_path: Path
) -> None:
    content = records(sharded_runs.checkpoint("hsdp") / RANK.format(0))
    dice = random.Random(0)
    read = 0
    for _ in range(100):
        broken = bytearray(content["data.pkl"])
        broken[dice.randrange(len(broken))] = dice.randrange(256)
        write_archive(tmp_path / "x.pt", {**content, "data.pkl": bytes(broken)})
        with (tmp_path / "x.pt").open("rb") as stream, suppress(NotWholeError):
            read_shard_file(reader(stream), (tmp_path / "x.pt").stat().st_size, "x.pt")
            read += 1
    assert 0 < read < 100


def test_a_pickle_cannot_ask_for_more_memory_than_its_file_is_large() -> None:
    for greedy in (b"\x80\x02Nr\xff\xff\xff\x7f.", b"\x80\x05\x96\0\0\0\0\0\0\0\x10."):
        with pytest.raises(InertError, match="none that torch writes there"):
            unpickle(greedy)
