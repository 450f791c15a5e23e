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
    """δ = L R as the weight is stored: L (rows, r), R (r, columns). norms: DoRA's, (rows,)."""

    L: torch.Tensor
    R: torch.Tensor
    norms: torch.Tensor | None = None


class OnBase(Source):
    """A base with products added to some of its weights; what is neither comes from ``_other``.

    Weights with a product are float32 (float64 on a float64 base).
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
        """Whether a weight gets a product added."""

    @abstractmethod
    def _product(self, name: str) -> Product:
        """Read the factors of a weight that has some, in the dtype of its ``tensors`` entry."""

    @abstractmethod
    def _other(self, wish: Read) -> None:
        """Read a weight without a product."""

    def read(self, reads: Sequence[Read]) -> None:
        """Rows of the merged weights."""
        for wish in reads:
            if not self._has_product(wish.name):
                self._other(wish)
            elif len(wish.into):
                self._merge(wish)

    def _merge(self, wish: Read) -> None:
        info = self.tensors[wish.name]
        columns = info.shape[1]
        start = wish.start // info.dtype.itemsize
        stop = start + len(wish.into) // info.dtype.itemsize
        first, last = start // columns, -(-stop // columns)
        flat = read_numbers(self._base, wish.name, first * columns, (last - first) * columns)
        rows = flat.to(info.dtype, copy=True).reshape(last - first, columns)
        with self._lock:
            product = self._products(wish.name)
        rows.addmm_(product.L[first:last], product.R)
        if product.norms is not None:
            # DoRA (arXiv 2402.09353, eq. 5): each row keeps its direction and takes norm m.
            norms = torch.linalg.vector_norm(rows, dim=1)
            rows *= (product.norms[first:last] / norms)[:, None]
        flat = rows.reshape(-1)[start - first * columns : stop - first * columns]
        wish.into[:] = flat.view(torch.uint8).numpy().data


def wide(info: TensorInfo) -> TensorInfo:
    """The dtype and shape of a base's weight once a product is added."""
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

    def _other(self, wish: Read) -> None:
        delta = self.adapter.deltas.get(wish.name)
        if delta is None:
            self._base.read([wish])
        else:
            assert not isinstance(delta, LowRank)
            self.adapter.source.read([Read(delta.name, wish.start, wish.into)])

    def fingerprint(self) -> list[Any]:
        """That of the adapter's files, and its scaling."""
        scale = {n: d.scaling for n, d in self.adapter.deltas.items() if isinstance(d, LowRank)}
        return [*self.adapter.source.fingerprint(), scale]

    def stop(self) -> None:
        """Let reads of adapter and base end soon."""
        self.adapter.source.stop()
        self._base.stop()
