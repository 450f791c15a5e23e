"""Where a tensor's bytes come from: one small interface with range reads.

A source knows the dtype and shape of its tensors before a byte of weights is read, and fills
buffers with byte ranges of them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

# Names of the safetensors format.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
EXTRAPOLATED = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class TensorInfo:
    """The dtype and shape of a stored tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """How many numbers it has; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True)
class Read:
    """A request for bytes [start, start + len(into)) of one tensor.

    Attributes:
        name: the tensor.
        start: offset in bytes from its first number, in row-major order.
        into: the buffer to fill.
    """

    name: str
    start: int
    into: memoryview


@dataclass(frozen=True)
class Range:
    """Bytes [start, stop) of one tensor, counted from its first number in row-major order."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Traffic:
    """Reads of a disk, or requests over a network, and the bytes that they bring."""

    requests: int
    nbytes: int


class Source(ABC):
    """The weights of one model. Reads may come from any thread.

    Attributes:
        label: names the model in messages.
        tensors: name → dtype and shape of everything that can be read.
        parallel_reads: how many threads may gain by reading at the same time.
        computed: whether its numbers are computed while they are read, so that their dtype says
            nothing of how the model is stored.
        remote: whether reading the same bytes twice is expensive, because they cross a network.
    """

    label: str
    tensors: Mapping[str, TensorInfo]
    parallel_reads = 4
    computed = False
    remote = False

    @abstractmethod
    def read(self, reads: Sequence[Read]) -> None:
        """Fill every buffer.

        Raises:
            RelexError: the bytes cannot be read, or are not those of the time of opening.
        """

    def traffic(self, ranges: Sequence[Range]) -> Traffic:
        """Return what reading ``ranges`` takes; none of them may overlap another."""
        return Traffic(len(ranges), sum(r.stop - r.start for r in ranges))

    def fingerprint(self) -> list[Any]:
        """Return, as JSON, what must be the same in another run for the bytes to be the same.

        It describes the source as it was opened.
        """
        return [self.label]

    def check_unchanged(self) -> None:  # noqa: B027  # a commit, or numbers in memory, never change
        """Raise RelexError when a file has changed since it was opened; the message names it."""

    def stop(self) -> None:  # noqa: B027  # most have nothing to wait for
        """Let reads that wait for something fail soon, because the run is over."""


def read_numbers(source: Source, name: str, start: int, count: int) -> torch.Tensor:
    """Return numbers [start, start + count) of a tensor, in row-major order: (count,).

    The dtype is the stored one.
    """
    dtype = source.tensors[name].dtype
    raw = torch.empty(count * dtype.itemsize, dtype=torch.uint8)
    source.read([Read(name, start * dtype.itemsize, raw.numpy().data)])
    return raw.view(dtype)
