"""One adapter: which weights of the base it changes, and by which stored tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch

from relex_merge.errors import RelexError
from relex_merge.weights.adapter_config import AdapterConfig
from relex_merge.weights.names import PREFIX
from relex_merge.weights.source import EXTRAPOLATED, Source, TensorInfo, read_numbers

_PAIRS = ((".lora_A.weight", ".lora_B.weight"), (".lora_embedding_A", ".lora_embedding_B"))
_MAGNITUDES = (".lora_magnitude_vector", ".lora_magnitude_vector.weight")


@dataclass(frozen=True)
class LowRank:
    """δ = s·B·A of one weight, or its transpose where the weight is stored (in, out).

    a, b: names of the stored factors, A (r, n) and B (m, r); scaling: s. magnitude: DoRA's row
    norms (m,), by which θ₀ + δ is rescaled.
    """

    a: str
    b: str
    rank: int
    scaling: float
    transposed: bool
    magnitude: str | None


@dataclass(frozen=True)
class Full:
    """A weight stored whole (``modules_to_save``, biases)."""

    name: str


Delta: TypeAlias = LowRank | Full


@dataclass(frozen=True)
class Adapter:
    """An opened adapter. deltas: weight of the base → how it is changed."""

    label: str
    config: AdapterConfig
    source: Source
    deltas: Mapping[str, Delta]

    def factors(self, delta: LowRank, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """(A (r, n), B (m, r)) in ``dtype``, read now; s is not in them."""
        return self.load(delta.a, dtype), self.load(delta.b, dtype)

    def load(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """One stored tensor in ``dtype``."""
        info = self.source.tensors[name]
        return read_numbers(self.source, name, 0, info.numel).reshape(info.shape).to(dtype)


def open_adapter(source: Source, config: AdapterConfig, base: Source) -> Adapter:
    """Find the base's weight of every stored tensor.

    Raises RelexError for modules that the base does not have, shapes that do not fit, and kinds of
    layers whose delta is not s·B·A.
    """
    reader = _Names(source, config, base)
    deltas: dict[str, Delta] = {}
    for stored in source.tensors:
        found = reader.delta(stored)
        if found is not None:
            deltas[found[0]] = found[1]
    if not deltas:
        raise RelexError(f"{source.label} holds no factors lora_A and lora_B: it adapts nothing")
    return Adapter(source.label, config, source, deltas)


class _Names:
    """Names and shapes of an adapter against those of its base."""

    def __init__(self, source: Source, config: AdapterConfig, base: Source) -> None:
        self._source, self._config, self._base = source, config, base

    def delta(self, stored: str) -> tuple[str, Delta] | None:
        """The weight that a stored tensor changes; None for the second factor and the norms."""
        for end_a, end_b in _PAIRS:
            if stored.endswith(end_a):
                return self._low_rank(stored.removesuffix(end_a), end_a, end_b)
            if stored.endswith(end_b):
                partner = stored.removesuffix(end_b) + end_a
                if partner not in self._source.tensors:
                    raise RelexError(f"{self._source.label}: {stored} has no factor A; it is torn")
                return None
        if stored.endswith(_MAGNITUDES):
            return None
        name = stored.removeprefix(PREFIX)
        frozen = name.endswith(
            ".base_layer.weight"
        )  # adapted embeddings bring the base's own along
        name = name.replace(".base_layer.", ".").replace(".modules_to_save.", ".")
        weight = self._weight(name, stored)
        self._check(weight, self._source.tensors[stored].shape)
        return None if frozen else (weight, Full(stored))

    def _low_rank(self, module: str, end_a: str, end_b: str) -> tuple[str, LowRank]:
        source, config = self._source, self._config
        a, b = module + end_a, module + end_b
        if b not in source.tensors:
            raise RelexError(f"{source.label}: {a} has no factor B; it is torn")
        A, B = source.tensors[a], source.tensors[b]
        self._check_factors(module, A, B)
        path = module.removeprefix(PREFIX)
        weight = self._weight(f"{path}.weight", a)
        shape = (B.shape[0], A.shape[1])
        # PEFT goes by the kind of layer, whatever the configuration says; a square does not tell.
        transposed = self._base.tensors[weight].shape != shape
        if shape[0] == shape[1]:
            transposed = config.transposed or end_a == ".lora_embedding_A"
        self._check(weight, shape[::-1] if transposed else shape)
        norms = [module + end for end in _MAGNITUDES if module + end in source.tensors]
        if norms and transposed:
            raise RelexError(
                f"{source.label}: {path} is DoRA on a weight stored (in, out); merge each adapter "
                "into the base and extrapolate the full models"
            )
        rank = A.shape[0]
        scaling = config.scaling(path, rank)
        return weight, LowRank(a, b, rank, scaling, transposed, norms[0] if norms else None)

    def _check_factors(self, module: str, A: TensorInfo, B: TensorInfo) -> None:
        label = self._source.label
        if len(A.shape) != 2 or len(B.shape) != 2:
            raise RelexError(
                f"{label}: {module} is a convolution; merge each adapter into the base and "
                "extrapolate the full models"
            )
        if A.shape[0] != B.shape[1] or not A.shape[0]:
            raise RelexError(
                f"{label}: the factors of {module}, {list(A.shape)} and {list(B.shape)}, do not "
                "multiply; fetch the adapter again"
            )
        if A.dtype not in EXTRAPOLATED or B.dtype not in EXTRAPOLATED:
            raise RelexError(f"{label}: {module} is stored as {A.dtype}, a quantized format")

    def _weight(self, name: str, stored: str) -> str:
        """The base's name of a weight; bases saved without their head lack its first part."""
        if name in self._base.tensors:
            return name
        _, _, rest = name.partition(".")
        if rest in self._base.tensors:
            return rest
        raise RelexError(
            f"{self._source.label} adapts {name} ({stored}), which the base {self._base.label} "
            "does not have; is it the model that the adapter was trained on?"
        )

    def _check(self, weight: str, shape: tuple[int, ...]) -> None:
        own = self._base.tensors[weight].shape
        if shape != own:
            raise RelexError(
                f"{self._source.label} changes {weight} as {list(shape)}, but it is {list(own)} in "
                f"the base {self._base.label}; is it the model that the adapter was trained on?"
            )
