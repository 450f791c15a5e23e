"""A fixed number of equal buffers, made when first needed and used again and again."""

from __future__ import annotations

import mmap
import os
import threading
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Buffer:
    """tensor: (nbytes,) uint8, and the same memory as bytes to read into."""

    tensor: torch.Tensor
    bytes: memoryview


class BufferPool:
    """Buffers of ``nbytes``; at most ``count`` exist. The one used last is handed out first.

    pinned: page-locked memory, from which a GPU copies without a stop.
    """

    def __init__(self, nbytes: int, count: int, *, pinned: bool) -> None:
        self._nbytes = nbytes
        self._count = count
        self._pinned = pinned
        self._free: list[Buffer] = []
        self._made = 0
        self._closed = False
        self._changed = threading.Condition()

    def acquire(self) -> Buffer | None:
        """Wait for a free buffer; None once the pool is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._free or self._made < self._count)
            if self._closed:
                return None
            if self._free:
                return self._free.pop()
            self._made += 1
        return self._make()

    def release(self, buffer: Buffer) -> None:
        """Hand a buffer back."""
        with self._changed:
            self._free.append(buffer)
            self._changed.notify()

    def close(self) -> None:
        """Let everybody who waits go."""
        with self._changed:
            self._closed = True
            self._free.clear()
            self._changed.notify_all()

    def _make(self) -> Buffer:
        if self._pinned:
            tensor = torch.empty(self._nbytes, dtype=torch.uint8, pin_memory=True)
            return Buffer(tensor, tensor.numpy().data)
        private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if os.name == "posix" else {}
        memory = mmap.mmap(-1, self._nbytes, **private)
        if hasattr(mmap, "MADV_HUGEPAGE"):  # a page fault for 2 MB instead of 4 kB
            memory.madvise(mmap.MADV_HUGEPAGE)
        return Buffer(torch.frombuffer(memory, dtype=torch.uint8), memoryview(memory))
