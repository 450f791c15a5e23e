"""An adapter seen as a full model: θ₀ + s·B·A, computed row by row while it is read.

For series that mix adapters with full checkpoints, for DoRA, whose delta is no product, and for the
full model that an adapter series is extrapolated to. Nothing is written: the engine reads these
rows as it reads those of any file.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from relex_merge.weights.adapter import Adapter, LowRank
from relex_merge.weights.source import Read, Source, TensorInfo, read_numbers

KEPT = 4  # weights whose factors stay in memory while spans of them are read


@dataclass(frozen=True)
class Product:
    """δ = L R in the orientation in which the weight is stored.

    Attributes:
        L: (rows, r).
        R: (r, columns).
        norms: DoRA's row norms, (rows,), by which θ₀ + δ is rescaled; None for plain LoRA.
    """

    L: torch.Tensor
    R: torch.Tensor
    norms: torch.Tensor | None = None


class OnBase(Source):
    """A base with products added to some of its weights.

    Weights with a product are float32 (float64 on a float64 base). A subclass says which weights
    have one, and reads the others in ``_read_other``.
    """

    computed = True

    def __init__(self, base: Source, label: str) -> None:
        self.label = label
        self.parallel_reads = base.parallel_reads
        self._base = base
        self._lock = threading.Lock()
        self._products = lru_cache(KEPT)(self._product)

    @abstractmethod
    def _has_product(self, name: str) -> bool:
        """Return whether a weight gets a product added."""

    @abstractmethod
    def _product(self, name: str) -> Product:
        """Read the factors of a weight that has some, in the dtype of its ``tensors`` entry."""

    @abstractmethod
    def _read_other(self, wanted: Read) -> None:
        """Read a weight without a product."""

    def read(self, reads: Sequence[Read]) -> None:
        """Fill every buffer with rows of the merged weights."""
        for wanted in reads:
            if not self._has_product(wanted.name):
                self._read_other(wanted)
            elif len(wanted.into):
                self._merge(wanted)

    def _merge(self, wanted: Read) -> None:
        info = self.tensors[wanted.name]
        columns = info.shape[1]
        start = wanted.start // info.dtype.itemsize
        stop = start + len(wanted.into) // info.dtype.itemsize
        first, last = start // columns, -(-stop // columns)
        flat = read_numbers(self._base, wanted.name, first * columns, (last - first) * columns)
        rows = flat.to(info.dtype, copy=True).reshape(last - first, columns)
        with self._lock:
            product = self._products(wanted.name)
        rows.addmm_(product.L[first:last], product.R)
        if product.norms is not None:
            # DoRA (arXiv 2402.09353, eq. 5): each row keeps its direction and takes norm m.
            norms = torch.linalg.vector_norm(rows, dim=1)
            rows *= (product.norms[first:last] / norms)[:, None]
        flat = rows.reshape(-1)[start - first * columns : stop - first * columns]
        wanted.into[:] = flat.view(torch.uint8).numpy().data


def wide(info: TensorInfo) -> TensorInfo:
    """Return the dtype and shape of a base's weight once a product is added."""
    dtype = torch.float64 if info.dtype == torch.float64 else torch.float32
    return TensorInfo(dtype, info.shape)


class MergedSource(OnBase):
    """The base with one adapter applied; its tensors are the base's."""

    def __init__(self, base: Source, adapter: Adapter) -> None:
        super().__init__(base, adapter.label)
        self.adapter = adapter
        self.remote = adapter.source.remote
        self.tensors = {name: self._info(name, info) for name, info in base.tensors.items()}

    def _info(self, name: str, stored: TensorInfo) -> TensorInfo:
        delta = self.adapter.deltas.get(name)
        if delta is None:
            return stored
        return (
            wide(stored) if isinstance(delta, LowRank) else self.adapter.source.tensors[delta.name]
        )

    def _has_product(self, name: str) -> bool:
        return isinstance(self.adapter.deltas.get(name), LowRank)

    def _product(self, name: str) -> Product:
        delta = self.adapter.deltas[name]
        assert isinstance(delta, LowRank)
        dtype = self.tensors[name].dtype
        A, B = self.adapter.factors(delta, dtype)
        L, R = (A.T, B.T) if delta.transposed else (B, A)
        norms = None
        if delta.magnitude is not None:
            norms = self.adapter.load(delta.magnitude, dtype).reshape(-1)
        return Product(L * delta.scaling, R, norms)

    def _read_other(self, wanted: Read) -> None:
        delta = self.adapter.deltas.get(wanted.name)
        if delta is None:
            self._base.read([wanted])
        else:
            assert not isinstance(delta, LowRank)
            self.adapter.source.read([Read(delta.name, wanted.start, wanted.into)])

    def fingerprint(self) -> list[Any]:
        """Return the fingerprint of the adapter's files, and the scaling of each weight."""
        scale = {n: d.scaling for n, d in self.adapter.deltas.items() if isinstance(d, LowRank)}
        return [*self.adapter.source.fingerprint(), scale]

    def check_unchanged(self) -> None:
        """Raise RelexError when a file of the adapter or of the base has changed."""
        self.adapter.source.check_unchanged()
        self._base.check_unchanged()

    def stop(self) -> None:
        """Let reads of the adapter and the base end soon."""
        self.adapter.source.stop()
        self._base.stop()
