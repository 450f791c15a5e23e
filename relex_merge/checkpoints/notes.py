"""What is said about checkpoints that cannot be read: the same words for a disk and for the Hub."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from relex_merge.checkpoints.files import TRAINED, packed_among
from relex_merge.checkpoints.sharded import COMPANIONS, is_sharded
from relex_merge.formatting import some
from relex_merge.hub.references import HubReference

_SHOWN = 4  # faults and folders in one message
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
        """Whether it holds the shards of a trainer's ranks."""
        return is_sharded(self.files)


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
    remote = [f for f in folders if f.shards and place is not None]
    notes = [f"{f.name} was left out: {f.why}" for f in _told(folders) if f not in remote]
    if remote and place is not None:
        names = some([f.name for f in remote])
        notes.append(
            f"left out, since they are shards of FSDP: {names}; {_fetching(remote, place)}"
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
    remote = [f for f in folders if f.shards and place is not None]
    if remote and place is not None:
        return f"{source} holds checkpoints in shards of FSDP; {_fetching(remote, place)}"
    if folders:
        named: dict[str, list[str]] = {}
        for folder in _told(folders):
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


def _told(folders: Sequence[LeftOut]) -> list[LeftOut]:
    """Return the folders without those that wait for what is in the folder above."""
    waiting = {f"{f.path}/{COMPANIONS}" for f in folders if f.shards}
    return [f for f in folders if f.path not in waiting]


def _fetching(shards: Sequence[LeftOut], place: HubReference) -> str:
    """Return the command that brings shards here from the Hub, where they can be read."""
    revision = f" --revision {shlex.quote(place.revision)}" if place.revision else ""
    wanted = " ".join(f"--include {shlex.quote(f'{f.path}/*')}" for f in shards[:_SHOWN])
    more = f", and so for {len(shards) - _SHOWN} more" if len(shards) > _SHOWN else ""
    return (
        "they are read from a disk:\n"
        f"  hf download {place.repo} {wanted} --local-dir run{revision}{more}\n"
        "  relex-merge recipe run"
    )
