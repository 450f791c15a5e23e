"""What is said about checkpoints that cannot be read: the same words for a disk and for the Hub."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from relex_merge.checkpoints.files import TRAINED, has_fsdp_shards, packed_among
from relex_merge.formatting import some
from relex_merge.hub.references import HubReference

_SHOWN = 4  # faults and conversions in one message
_NARROW = {"BF16": "bfloat16", "bfloat16": "bfloat16", "F16": "float16", "float16": "float16"}


def rounding(dtype: str | None) -> list[str]:
    """Say what numbers of 16 bits do to a trajectory; nothing of others.

    Args:
        dtype: of most numbers, as safetensors or transformers spells it.
    """
    name = _NARROW.get(dtype or "")
    if name is None:
        return []
    return [
        f"the checkpoints hold {name} numbers, which round RLVR's small steps away: backtests of "
        "weights may be poor for that alone, and `relex-merge evaluate` sees what the models do; "
        "save float32 where you can"
    ]


@dataclass(frozen=True)
class LeftOut:
    """A folder that should hold a checkpoint and cannot be read.

    Attributes:
        name: what it is called in messages.
        path: where it is, on this disk or in the repo.
        files: names of the files in it.
        why: what is wrong with it.
    """

    name: str
    path: str
    files: Collection[str]
    why: str

    @property
    def shards(self) -> bool:
        """Whether it holds what verl saves, the shards of its ranks."""
        return has_fsdp_shards(self.files)


def without_weights(files: Collection[str]) -> str:
    """Say that a folder has no weights, and what it has."""
    if packed := packed_among(files):
        return f"it has only {packed}; {TRAINED}, as safetensors"
    return f"it has no weights (it holds {some(sorted(files))})"


def left_out(folders: Sequence[LeftOut], place: HubReference | None = None) -> list[str]:
    """Return notes on checkpoints that are no part of the series.

    Args:
        folders: the checkpoints.
        place: the repo that they are in, None on this disk.
    """
    shards = [f for f in folders if f.shards]
    waiting = {f"{f.path}/huggingface" for f in shards}  # has a configuration and no weights yet
    notes = [
        f"{f.name} was left out: {f.why}" for f in folders if not f.shards and f.path not in waiting
    ]
    if shards:
        names = some([f.name for f in shards])
        notes.append(
            f"left out, since they hold FSDP shards only: {names}; {_conversion(shards, place)}"
        )
    return notes


def nothing_found(
    source: str,
    folders: Sequence[LeftOut],
    looked_for: str,
    place: HubReference | None = None,
) -> str:
    """Say why there is no checkpoint that can be read.

    Args:
        source: what was searched.
        folders: the checkpoints that there are, none of them whole.
        looked_for: what was looked for and what is there, for a place without any checkpoint.
        place: the repo that the folders are in, None on this disk.
    """
    shards = [f for f in folders if f.shards]
    if shards:
        return (
            f"{source} holds checkpoints of verl in FSDP shards only, which no other tool reads; "
            f"{_conversion(shards, place)}"
        )
    if folders:
        named: dict[str, list[str]] = {}
        for folder in folders:
            named.setdefault(folder.why, []).append(folder.name)
        told = [f"{some(names, _SHOWN)}: {why}" for why, names in named.items()]
        faults = some(told, _SHOWN, separator="; ")
        return f"{source}: no checkpoint with whole weights; {faults}"
    return f"no checkpoints in {source}: {looked_for}"


def packed_series(source: str, files: Iterable[str]) -> str | None:
    """Say that a place holds models packed for inference alone; None where there are none.

    Args:
        source: what was searched.
        files: names of the files in it.
    """
    packed = packed_among(files)
    return f"{source} holds {packed}; {TRAINED}, as safetensors" if packed else None


def _conversion(shards: Sequence[LeftOut], place: HubReference | None) -> str:
    """Return verl's own command for each folder, behind the one that fetches it from the Hub."""
    lines = []
    for folder in shards[:_SHOWN]:
        here = folder.path
        if place is not None:
            here = f"run/{folder.path}"
            revision = f" --revision {shlex.quote(place.revision)}" if place.revision else ""
            lines.append(
                f"hf download {place.repo} --include '{folder.path}/*' --local-dir run{revision}"
            )
        lines.append(
            "python -m verl.model_merger merge --backend fsdp "
            f"--local_dir {shlex.quote(here)} --target_dir {shlex.quote(here + '/huggingface')}"
        )
    more = f"\n  and so for {len(shards) - _SHOWN} more" if len(shards) > _SHOWN else ""
    return "verl converts them:\n  " + "\n  ".join(lines) + more
