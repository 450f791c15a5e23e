"""What this machine can spare: cores, memory, devices."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from relex_merge.engine import kernels
from relex_merge.engine.memory_limits import free_memory
from relex_merge.errors import RelexError

if TYPE_CHECKING:
    from mergekit.options import MergeOptions

LARGEST_DEFAULT = 4 * 2**30  # bytes
DISK_PIECE = 128 * 2**20  # bytes; larger pieces are not faster, smaller ones cost more Python
SPAN_CHUNKS = 8  # a span is what one worker does at a time


@dataclass(frozen=True)
class Resources:
    """Where and with how much a run computes. budget: bytes for everything the engine allocates."""

    device: torch.device
    workers: int
    budget: int

    def span(self, T: int) -> int:
        """Numbers of a tensor that are summed as one; on the CPU it depends on T alone."""
        length = kernels.chunk_length(T, torch.device("cpu")) * SPAN_CHUNKS
        if self.device.type == "cpu":
            return length
        # rows as stored (at most 4 bytes a number) of every worker in a quarter of the budget
        most = self.budget // 4 // self.workers // (4 * (T + 1))
        return max(most // length, 1) * length

    def piece_bytes(self, streamed: bool) -> int:
        """The size of buffer to aim at: from the Hub, spans of tens of MB of every revision."""
        return self.budget // 4 if streamed or self.device.type != "cpu" else DISK_PIECE

    @property
    def ahead(self) -> int:
        """Buffers that are read while the workers are busy with others."""
        return self.workers + 2


def available(options: MergeOptions, memory_budget: int | None) -> Resources:
    """Return what a run may use.

    Args:
        options: mergekit's, of which ``--device`` and ``--num-threads`` count.
        memory_budget: bytes; by default a quarter of the free memory (of the machine, or of the
            container where that is less), at most 4 GiB; on a GPU a quarter of its free memory.

    Raises:
        RelexError: the device is not there, or the number of threads is none.
    """
    check_threads(options)
    try:
        device = torch.device(options.device or "cpu")
    except RuntimeError as error:
        raise RelexError(
            f"--device {options.device}: torch has no such device; give cpu, cuda, cuda:1, mps, "
            "xpu or auto"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RelexError(f"--device {device}: no CUDA device is available; leave the option out")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = options.num_threads or cores or 1
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return Resources(device, 2, memory_budget or free // 4)
    return Resources(device, workers, memory_budget or min(free_memory() // 4, LARGEST_DEFAULT))


def check_accelerator(options: MergeOptions) -> None:
    """Raise RelexError for ``--multi-gpu`` where there is no GPU."""
    if options.multi_gpu and not torch.accelerator.is_available():
        raise RelexError(
            "--multi-gpu: there is no GPU here; leave the option out (also --gpu-rich, which sets "
            "it), and the CPU computes"
        )


def check_threads(options: MergeOptions) -> None:
    """Raise RelexError for a ``--num-threads`` below 1."""
    if options.num_threads is not None and options.num_threads < 1:
        raise RelexError(f"--num-threads is {options.num_threads}; give 1 or more, or leave it out")
