"""One file of a rank, or of a full state, as ``torch.save`` leaves it, opened by what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from relex_merge.checkpoints.archive import Archive, ArchiveError, Reader, check_end, read_archive
from relex_merge.checkpoints.files import NotWholeError
from relex_merge.checkpoints.inert import (
    Distributed,
    InertError,
    RefusedNameError,
    Shards,
    Stored,
    unpickle,
)

_LONGEST = 200  # characters of a name out of a file in messages

Part: TypeAlias = Stored | Distributed | Shards
"""What a rank has of one tensor."""


@dataclass(frozen=True)
class ShardFile:
    """What one file says of the weights.

    Attributes:
        archive: where its storages lie.
        parts: name of a tensor → what the file has of it.
    """

    archive: Archive
    parts: Mapping[str, Part]


class _Stream(Protocol):
    """A file that is open for reading."""

    def seek(self, offset: int, /) -> int: ...

    def read(self, size: int, /) -> bytes | None: ...


def reader(stream: _Stream, begin: int = 0) -> Reader:
    """Return what reads ranges of a file, by offsets that count from ``begin``."""

    def read(offset: int, count: int) -> bytes:
        stream.seek(begin + offset)
        return stream.read(count) or b""

    return read


def read_shard_file(read: Reader, size: int, name: str) -> ShardFile:
    """Return what a file of ``torch.save`` says of the weights in it.

    Args:
        read: reads the file.
        size: its bytes.
        name: what to call it in messages.

    Raises:
        NotWholeError: the file is not whole, holds something else than weights, or names what is
            no part of them, which was not run.
    """
    try:
        archive = read_archive(read, size)
        state = unpickle(archive.pickle)
    except ArchiveError as error:
        raise NotWholeError(f"{name} {error}") from error
    except RefusedNameError as error:
        raise NotWholeError(
            f"{name} names {str(error)[:_LONGEST]}, which is no part of a model's weights; nothing "
            "of it was run"
        ) from error
    except InertError as error:
        raise NotWholeError(f"{name} is no pickle of weights ({str(error)[:_LONGEST]})") from error
    return ShardFile(archive, _parts(state, name))


def _parts(state: Any, name: str) -> dict[str, Part]:
    """Return the tensors of a state dict; what is none, such as a counter, is left out."""
    if isinstance(state, dict):
        for key in ("state_dict", "model"):
            if isinstance(state.get(key), dict):
                state = state[key]
    if not isinstance(state, dict):
        raise NotWholeError(f"{name} holds no dictionary of tensors")
    parts = {}
    for key, part in state.items():
        if isinstance(part, (Stored, Distributed, Shards)):
            if not isinstance(key, str):
                raise NotWholeError(
                    f"{name} names a tensor {str(key)[:_LONGEST]!r}, which is no text"
                )
            if not _is_sound(part):
                raise NotWholeError(
                    f"{name} describes {key[:_LONGEST]} in a way that torch does not"
                )
            parts[key] = part
    return parts


def _is_sound(part: Part) -> bool:
    """Whether what a pickle says of a tensor has the right types."""
    if isinstance(part, Stored):
        return (
            type(part.dtype) is str
            and type(part.storage) is str
            and _are_sizes((part.offset,))
            and _are_sizes(part.shape)
            and _are_sizes(part.strides)
            and len(part.shape) == len(part.strides)
        )
    if type(part.dtype) is not str or not _are_sizes(part.shape):
        return False
    if isinstance(part, Shards):
        return all(
            _are_sizes(offsets)
            and isinstance(stored, Stored)
            and _is_sound(stored)
            and stored.dtype == part.dtype
            for offsets, stored in part.parts
        )
    return (
        isinstance(part.local, Stored)
        and _is_sound(part.local)
        and part.local.dtype == part.dtype
        and _are_sizes(part.mesh)
        and (part.coordinate is None or _are_sizes(part.coordinate))
    )


def _are_sizes(numbers: object) -> bool:
    return isinstance(numbers, tuple) and all(type(n) is int and n >= 0 for n in numbers)


def open_shard_file(path: Path) -> ShardFile:
    """Return what a file on this disk says; as :func:`read_shard_file`."""
    try:
        with path.open("rb", buffering=0) as stream:
            return read_shard_file(reader(stream), path.stat().st_size, path.name)
    except OSError as error:
        raise NotWholeError(f"{path.name} cannot be read ({error.strerror})") from error


def check_shard_file(path: Path) -> None:
    """Raise NotWholeError for a file that is cut off, as one that is still being written is."""
    try:
        with path.open("rb", buffering=0) as stream:
            check_end(reader(stream), path.stat().st_size)
    except ArchiveError as error:
        raise NotWholeError(f"{path.name} {error}") from error
    except OSError as error:
        raise NotWholeError(f"{path.name} cannot be read ({error.strerror})") from error
