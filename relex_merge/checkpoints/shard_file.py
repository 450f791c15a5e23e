"""One file of a rank, or of a full state, as ``torch.save`` leaves it, opened by what it says."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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


class _Collector:
    """Python's collector of cycles, which walks through all objects again and again meanwhile.

    A file describes hundreds of tensors in thousands of objects, none of them in a cycle.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._resting = 0
        self._was_on = True

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Let it rest until the last of the threads that want that is done."""
        with self._lock:
            if not self._resting:
                self._was_on = gc.isenabled()
                gc.disable()
            self._resting += 1
        try:
            yield
        finally:
            with self._lock:
                self._resting -= 1
                if not self._resting and self._was_on:
                    gc.enable()


COLLECTOR = _Collector()


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
        with COLLECTOR.at_rest():
            state = unpickle(archive.pickle)
            parts = _parts(state, name)
    except ArchiveError as error:
        raise NotWholeError(f"{name} {error}") from error
    except RefusedNameError as error:
        raise NotWholeError(
            f"{name} names {str(error)[:_LONGEST]}, which is no part of a model's weights; nothing "
            "of it was run"
        ) from error
    except InertError as error:
        raise NotWholeError(f"{name} is no pickle of weights ({str(error)[:_LONGEST]})") from error
    return ShardFile(archive, parts)


def _parts(state: Any, name: str) -> dict[str, Part]:
    """Return the tensors of a state dict; what is none, such as a counter, is left out."""
    if isinstance(state, dict):
        for key in ("state_dict", "model"):
            if isinstance(state.get(key), dict):
                state = state[key]
    if not isinstance(state, dict):
        raise NotWholeError(f"{name} holds no dictionary of tensors")
    parts = {}
    sizes: set[object] = {()}
    for key, part in state.items():
        if isinstance(part, (Stored, Distributed, Shards)):
            if not isinstance(key, str):
                raise NotWholeError(
                    f"{name} names a tensor {str(key)[:_LONGEST]!r}, which is no text"
                )
            if not _is_sound(part, sizes):
                raise NotWholeError(
                    f"{name} describes {key[:_LONGEST]} in a way that torch does not"
                )
            parts[key] = part
    return parts


def _is_sound(part: Part, sizes: set[object]) -> bool:
    """Whether what a pickle says of a tensor has the right types.

    Args:
        part: what it says.
        sizes: tuples that were found to be sizes already.
    """
    if isinstance(part, Stored):
        return (
            type(part.dtype) is str
            and type(part.storage) is str
            and type(part.offset) is int
            and part.offset >= 0
            and _are_sizes(part.shape, sizes)
            and _are_sizes(part.strides, sizes)
            and len(part.shape) == len(part.strides)
        )
    if type(part.dtype) is not str or not _are_sizes(part.shape, sizes):
        return False
    if isinstance(part, Shards):
        return all(
            _are_sizes(offsets, sizes)
            and isinstance(stored, Stored)
            and _is_sound(stored, sizes)
            and stored.dtype == part.dtype
            for offsets, stored in part.parts
        )
    return (
        isinstance(part.local, Stored)
        and _is_sound(part.local, sizes)
        and part.local.dtype == part.dtype
        and _are_sizes(part.mesh, sizes)
        and (part.coordinate is None or _are_sizes(part.coordinate, sizes))
    )


def _are_sizes(numbers: object, known: set[object]) -> bool:
    if not isinstance(numbers, tuple):
        return False
    try:
        if numbers in known:
            return True
    except TypeError:  # something in it cannot be hashed
        return False
    sound = all(type(n) is int and n >= 0 for n in numbers)
    if sound:
        known.add(numbers)
    return sound


def read_description(read: Reader, size: int, name: str) -> bytes:
    """Return the pickle in a file, unread. Raises NotWholeError when the file is not whole."""
    try:
        return read_archive(read, size).pickle
    except ArchiveError as error:
        raise NotWholeError(f"{name} {error}") from error


def check_shard_file(read: Reader, size: int, name: str) -> None:
    """Raise NotWholeError for a file that is cut off, as one that is still being written is."""
    try:
        check_end(read, size)
    except ArchiveError as error:
        raise NotWholeError(f"{name} {error}") from error
