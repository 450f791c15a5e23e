"""Tensor names sorted by layer and by kind of module.

``model.layers.3.self_attn.q_proj.weight`` is layer 3, kind ``q_proj``. Nothing is assumed about the
architecture: the layer is the path up to the first number in the name, the kind is the shortest end
of what is left that tells it from the others (GPT-2's ``attn.c_proj`` and ``mlp.c_proj``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where a tensor sits.

    Attributes:
        layer: "3", or "encoder.layers.3" where a model has several stacks; None outside any stack
            (embeddings, final norm).
        kind: "q_proj", "q_proj.bias", "norm" …
    """

    layer: str | None
    kind: str


@dataclass(frozen=True)
class _Name:
    """A tensor's name taken apart.

    Attributes:
        stack: The path to its layer.
        number: Of its layer.
        module: The rest of the path without further numbers.
        leaf: ".bias" and the like, "" for a weight.
    """

    stack: str
    number: int | None
    module: tuple[str, ...]
    leaf: str


def _split(name: str) -> _Name:
    *path, leaf = name.split(".")
    if leaf not in ("weight", "bias") or not path:
        path, leaf = [*path, leaf], "weight"
    leaf = "" if leaf == "weight" else f".{leaf}"
    first = next((i for i, part in enumerate(path) if part.isdigit()), None)
    if first is None:
        return _Name("", None, tuple(path), leaf)
    rest = tuple(part for part in path[first + 1 :] if not part.isdigit())
    module = rest or tuple(path[:first]) or (path[first],)
    return _Name(".".join(path[:first]), int(path[first]), module, leaf)


def _kinds(modules: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """Return module → its shortest end that no other module shares."""
    labels: dict[tuple[str, ...], str] = {}
    left = set(modules)
    length = 1
    while left:
        ends: dict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
        for module in left:
            ends[module[-length:]].append(module)
        for end, sharing in ends.items():
            for module in sharing:
                if len(sharing) == 1 or len(module) == length:
                    labels[module] = ".".join(end)
                    left.discard(module)
        length += 1
    return labels


def places(names: Iterable[str]) -> dict[str, Place]:
    """Return name → :class:`Place`, for all names of one model."""
    split = {name: _split(name) for name in names}
    stacks = {parts.stack for parts in split.values() if parts.number is not None}
    kinds = _kinds(parts.module for parts in split.values())

    def layer(parts: _Name) -> str | None:
        if parts.number is None:
            return None
        return str(parts.number) if len(stacks) == 1 else f"{parts.stack}.{parts.number}"

    return {
        name: Place(layer(parts), kinds[parts.module] + parts.leaf) for name, parts in split.items()
    }


def members(names: Iterable[str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return layer → names and kind → names, each in the order of the model."""
    layers: dict[str, list[str]] = {}
    kinds: dict[str, list[str]] = {}
    for name, place in places(names).items():
        if place.layer is not None:
            layers.setdefault(place.layer, []).append(name)
        kinds.setdefault(place.kind, []).append(name)
    return dict(sorted(layers.items(), key=lambda item: _natural(item[0]))), kinds


def _natural(layer: str) -> tuple[str, int]:
    stack, _, number = layer.rpartition(".")
    return stack, int(number)
