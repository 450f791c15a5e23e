"""Safetensors shards written in place: every tensor at its final offset, in any order.

The layout of a model is known before its first number is, so headers come first, and finished
pieces go straight to their place on the disk. Nothing is held in memory, and a shard whose tensors
are all there is a finished file.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from relex_merge.checkpoints.files import INDEX, shard_name
from relex_merge.errors import disk_errors
from relex_merge.weights.source import DTYPE_NAMES, TensorInfo

KEPT_OPEN = 32  # files of the process, of the 64 that a strict limit allows
_SLOTS = threading.BoundedSemaphore(KEPT_OPEN)


@dataclass(frozen=True)
class Shard:
    """One output file.

    Attributes:
        file: its name.
        header: its first bytes.
        offsets: tensor → byte offset in the file.
        size: bytes of the file.
    """

    file: str
    header: bytes
    offsets: Mapping[str, int]
    size: int


def plan_shards(tensors: Mapping[str, TensorInfo], max_bytes: int) -> list[Shard]:
    """Cut a model into shards as mergekit does: one is closed when the next tensor would not fit.

    Args:
        tensors: name → dtype and shape, in the order in which they are cut.
        max_bytes: of the numbers in a shard, which holds one tensor at least; 0: no limit.
    """
    groups: list[dict[str, TensorInfo]] = [{}]
    filled = 0
    for name, info in tensors.items():
        if groups[-1] and 0 < max_bytes < filled + info.nbytes:
            groups.append({})
            filled = 0
        groups[-1][name] = info
        filled += info.nbytes
    total = len(groups)
    return [layout(shard_name(i, total), group) for i, group in enumerate(groups, start=1)]


def layout(file: str, tensors: Mapping[str, TensorInfo]) -> Shard:
    """Return header and offsets of one safetensors file that holds ``tensors``."""
    # Wide dtypes first keeps every tensor aligned to its own size, as the format asks of writers.
    ordered = sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize)
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    starts: dict[str, int] = {}
    position = 0
    for name, info in ordered:
        starts[name] = position
        entries[name] = {
            "dtype": DTYPE_NAMES[info.dtype],
            "shape": list(info.shape),
            "data_offsets": [position, position + info.nbytes],
        }
        position += info.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    offsets = {name: len(header) + start for name, start in starts.items()}
    return Shard(file, header, offsets, len(header) + position)


def write_index(folder: Path, shards: Sequence[Shard]) -> None:
    """Write the index of the shards, for a single one too.

    Loaders that take every ``*.safetensors`` of a folder for weights heed it, and so leave
    ``relex_gram.safetensors`` alone.
    """
    weight_map = {name: shard.file for shard in shards for name in shard.offsets}
    total = sum(shard.size - len(shard.header) for shard in shards)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    path = folder / INDEX
    path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


class ShardFile:
    """One shard being written; writes may come from any thread.

    The file stays open while fewer than ``KEPT_OPEN`` of the process do; otherwise each write opens
    it again, so that any number of outputs goes with a small limit on open files.
    """

    def __init__(self, folder: Path, shard: Shard) -> None:
        self.shard = shard
        self._path = folder / shard.file
        self._lock = threading.Lock()
        self._kept: FileIO | None = None
        with disk_errors(self._path):
            with self._path.open("wb", buffering=0) as stream:
                stream.write(shard.header)
                stream.truncate(shard.size)
            if _SLOTS.acquire(blocking=False):
                self._kept = self._path.open("r+b", buffering=0)

    def write(self, name: str, start: int, data: memoryview) -> None:
        """Put bytes [start, start + len(data)) of tensor ``name`` in their place."""
        with self._lock, self._opened() as stream:
            stream.seek(self.shard.offsets[name] + start)
            while len(data):
                data = data[stream.write(data) or 0 :]

    def close(self) -> None:
        """Close the file, finished or not."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None
            _SLOTS.release()

    def sync(self) -> None:
        """Return when the file is on the disk."""
        with self._opened() as stream:
            os.fsync(stream.fileno())

    @contextmanager
    def _opened(self) -> Iterator[FileIO]:
        with disk_errors(self._path):
            if self._kept is not None:
                yield self._kept
            else:
                with self._path.open("r+b", buffering=0) as stream:
                    yield stream
