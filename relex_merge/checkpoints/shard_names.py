"""Names of the files of checkpoints in shards: which there are, and whether one is missing."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from relex_merge.checkpoints.files import NotWholeError
from relex_merge.checkpoints.json_files import peek_json
from relex_merge.formatting import some

FSDP_CONFIG = "fsdp_config.json"
METADATA = ".metadata"
TRAINER_FOLDER = "pytorch_model_fsdp_0"  # accelerate's name
TRAINER_FILE = "pytorch_model_fsdp.bin"
COMPANIONS = "huggingface"  # verl's folder of configuration and tokenizer
LORA_FOLDER = "lora_adapter"  # and of an adapter
ACTOR = "actor"  # verl's folder of the policy
LORA_META = "lora_train_meta.json"  # rank and α of verl's LoRA runs
_RANK = re.compile(r"model_world_size_(\d{1,6})_rank_(\d{1,6})\.pt")
_DCP_SAFETENSORS = re.compile(r"shard-(\d{1,6})-model-(\d{1,6})-of-(\d{1,6})\.safetensors")
_DCP = ".distcp"


def is_sharded(names: Collection[str], below: Collection[str] = ()) -> bool:
    """Whether a folder is meant to hold a checkpoint in shards, be it whole or not.

    Args:
        names: of the files in it.
        below: of the folders in it.
    """
    return (
        METADATA in names
        or TRAINER_FILE in names
        or TRAINER_FOLDER in below
        or any(_RANK.fullmatch(name) or _DCP_SAFETENSORS.fullmatch(name) for name in names)
    )


def is_weights(name: str) -> bool:
    """Whether a file is, or describes, the weights of a checkpoint in shards."""
    return (
        name in (METADATA, TRAINER_FILE)
        or name.endswith(_DCP)
        or bool(_RANK.fullmatch(name) or _DCP_SAFETENSORS.fullmatch(name))
    )


def are_of_ranks(names: Iterable[str]) -> bool:
    """Whether verl's files of ranks are among names."""
    return any(map(_RANK.fullmatch, names))


def of_all_ranks(names: Iterable[str], folder: Path) -> tuple[str, ...]:
    """Return verl's files in the order of the ranks, of one world size.

    Args:
        names: of the files in the folder.
        folder: has ``fsdp_config.json``, where the trainer wrote one.

    Raises:
        NotWholeError: a rank is missing, or the ranks of several saves are mixed.
    """
    worlds: dict[int, set[int]] = {}
    for found in filter(None, map(_RANK.fullmatch, names)):
        worlds.setdefault(int(found[1]), set()).add(int(found[2]))
    said: object = peek_json(folder / FSDP_CONFIG).get("world_size")
    if len(worlds) > 1 and said not in worlds:
        raise NotWholeError(
            f"it holds shards of {some([str(w) for w in sorted(worlds)])} ranks, and no "
            f"{FSDP_CONFIG} says which of them count: move those of the earlier save away"
        )
    world = next(world for world in worlds if len(worlds) == 1 or world == said)
    if said is not None and said != world:
        raise NotWholeError(
            f"its shards are those of {world} ranks, and {FSDP_CONFIG} says {said}: the ranks of "
            "two saves are mixed, or a file has been renamed"
        )
    missing = sorted(set(range(world)) - worlds[world])
    if missing:
        raise NotWholeError(
            f"rank{'s' * (len(missing) > 1)} {some([str(rank) for rank in missing])} of {world} "
            "missing: it is still being written, or not all of it was copied here"
        )
    if beyond := sorted(rank for rank in worlds[world] if rank >= world):
        raise NotWholeError(f"a file is of rank {beyond[0]}, and there are {world} ranks")
    return tuple(f"model_world_size_{world}_rank_{rank}.pt" for rank in range(world))


def of_dcp(names: Iterable[str], folder: Path) -> tuple[str, ...]:
    """Return the files of torch.distributed.checkpoint. Raises NotWholeError without metadata."""
    names = sorted(names)
    if METADATA not in names:
        raise NotWholeError(
            f"{folder.name} has no {METADATA}, which is written last: it is still being written"
        )
    return tuple(name for name in names if name.endswith(_DCP))


def of_dcp_safetensors(names: Iterable[str]) -> tuple[str, ...]:
    """Return the files of its variant in safetensors. Raises NotWholeError when one is missing."""
    files = sorted(name for name in names if _DCP_SAFETENSORS.fullmatch(name))
    shards, parts = set(), set()
    total = 0
    for found in filter(None, map(_DCP_SAFETENSORS.fullmatch, files)):
        shards.add(int(found[1]))
        parts.add(int(found[2]))
        total = max(total, int(found[3]))
    missing = sorted(set(range(1, max(shards) + 1)) - shards)
    if missing:
        raise NotWholeError(f"shard {missing[0]} of at least {max(shards)} is missing")
    absent = sorted(set(range(1, total + 1)) - parts)
    if absent:
        raise NotWholeError(f"no shard of file {absent[0]} of {total} is there")
    return tuple(files)
