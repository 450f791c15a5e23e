"""Checkpoints whose bytes stay in memory, as they are stored, so that they are read once.

A new row of G needs the deltas of all earlier checkpoints, and no smaller summary of them gives it
exactly. Those that fit a budget are held here; the others are read again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from relex_merge.weights.source import Source, read_numbers


@dataclass(frozen=True)
class Numbers:
    """The tensors of one source, from memory or from where it has them."""

    source: Source
    held: Mapping[str, torch.Tensor] | None

    def get(self, name: str, start: int, count: int) -> torch.Tensor:
        """Numbers [start, start + count) of a tensor, row-major, as they are stored: (count,)."""
        if self.held is None:
            return read_numbers(self.source, name, start, count)
        return self.held[name][start : start + count]


class Memory:
    """Tensors of some sources. budget: bytes for all of them together."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._held: dict[str, dict[str, torch.Tensor]] = {}

    @property
    def used(self) -> int:
        """Bytes that are held."""
        return sum(t.nbytes for tensors in self._held.values() for t in tensors.values())

    def hold(self, source: Source, names: Collection[str]) -> Numbers:
        """The named tensors of a source, read once and kept if they fit, else read when wanted."""
        key = _key(source)
        size = sum(source.tensors[name].nbytes for name in names)
        if key not in self._held and not source.computed and self.used + size <= self._budget:
            self._held[key] = {
                name: read_numbers(source, name, 0, source.tensors[name].numel) for name in names
            }
        return Numbers(source, self._held.get(key))

    def keep_only(self, sources: Sequence[Source]) -> None:
        """Forget what is not among ``sources`` any more, or has changed on the disk."""
        keys = {_key(source) for source in sources}
        self._held = {key: held for key, held in self._held.items() if key in keys}


def _key(source: Source) -> str:
    return json.dumps(source.fingerprint())
