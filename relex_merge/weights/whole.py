"""A source written as safetensors shards, as whole tensors in a dtype of choice, piece by piece."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from relex_merge.weights.source import Source, TensorInfo, read_numbers
from relex_merge.weights.writer import ShardFile, plan_shards, write_index

LARGEST = 5 * 10**9  # bytes of a file, as transformers has it
_PIECE = 2**24  # numbers in memory of each of the threads
_THREADS = 4


def write_whole(
    source: Source,
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    without: Collection[str] = (),
    file: str | None = None,
) -> None:
    """Write the tensors of a source.

    Args:
        source: where they come from.
        folder: where the files go, and an index when there are several.
        dtype: of floating tensors, rounded to nearest even; by default as they are stored.
        without: tensors that are left out.
        file: name of the one file; by default transformers' names, and as many files as it takes.

    Raises:
        RelexError: the source has changed, or the disk does not take the files.
    """
    tensors = {
        name: _made(info, dtype) for name, info in source.tensors.items() if name not in without
    }
    shards = plan_shards(tensors, 0 if file else LARGEST)
    if file:
        shards = [replace(shards[0], file=file)]
    with ExitStack() as stack:
        written: dict[str, ShardFile] = {}
        for shard in shards:
            opened = ShardFile(folder, shard)
            stack.callback(opened.close)
            written |= dict.fromkeys(shard.offsets, opened)

        def copy(piece: tuple[str, int, int]) -> None:
            name, start, count = piece
            numbers = read_numbers(source, name, start, count).to(tensors[name].dtype)
            raw = numbers.view(torch.uint8).numpy().data
            written[name].write(name, start * numbers.element_size(), raw)

        with ThreadPoolExecutor(_THREADS) as pool:
            for _ in pool.map(copy, _pieces(tensors)):
                pass
    source.check_unchanged()
    if len(shards) > 1:
        write_index(folder, shards)


def holds_same(source: Source, first: str, second: str) -> bool:
    """Whether two tensors of a source have the same dtype, shape and bytes."""
    info = source.tensors[first]
    if source.tensors[second] != info:
        return False
    for _, start, count in _pieces({first: info}):
        a, b = (read_numbers(source, name, start, count) for name in (first, second))
        if not torch.equal(a.view(torch.uint8), b.view(torch.uint8)):
            return False
    return True


def _made(info: TensorInfo, dtype: torch.dtype | None) -> TensorInfo:
    if dtype is None or not info.dtype.is_floating_point:
        return info
    return replace(info, dtype=dtype)


def _pieces(tensors: dict[str, TensorInfo]) -> Iterator[tuple[str, int, int]]:
    """Yield the parts in which tensors are copied: name, first number, how many."""
    for name, info in tensors.items():
        for start in range(0, info.numel, _PIECE):
            yield name, start, min(_PIECE, info.numel - start)
