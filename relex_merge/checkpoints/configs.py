"""What config.json and adapter_config.json say: which model it is, and what it was made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from relex_merge.checkpoints.files import ADAPTER_CONFIG, CONFIG
from relex_merge.checkpoints.series import Kind
from relex_merge.errors import RelexError

Json: TypeAlias = Mapping[str, Any]

_SIZES = ("hidden_size", "d_model", "n_embd", "num_hidden_layers", "n_layer", "num_layers")
_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}


@dataclass(frozen=True)
class Identity:
    """What all checkpoints of a run have in common.

    model: the architecture; sizes: hidden size and number of layers, as the configuration names
    them; of an adapter only its base's name counts.
    """

    model: str
    sizes: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        return " ".join([self.model, *(f"{name} {value}" for name, value in self.sizes)])


class MisfitError(RelexError):
    """Models that are not of one run."""


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file, empty where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def config_name(kind: Kind) -> str:
    """The file that says which model a checkpoint is."""
    return ADAPTER_CONFIG if kind == "adapter" else CONFIG


def identity(config: Json, kind: Kind) -> Identity | None:
    """What a configuration says about the model; None for one that says nothing."""
    if kind == "adapter":
        # A base may be named by its place on one machine and another; ranks may differ in a series.
        base = PurePosixPath(str(config.get("base_model_name_or_path") or "")).name
        return Identity(f"adapter of {base}", ()) if base else None
    names = config.get("architectures") or [config.get("model_type")]
    inner = config.get("text_config")
    sizes = {**(inner if isinstance(inner, dict) else {}), **config}
    known = tuple((name, sizes[name]) for name in _SIZES if name in sizes)
    return Identity(str(names[0]), known) if names[0] else None


def check_same_model(found: Sequence[tuple[str, Identity | None]], remedy: str) -> None:
    """Raise MisfitError when labelled checkpoints are not of one model."""
    known = [(label, one) for label, one in found if one is not None]
    for label, one in known[1:]:
        first, reference = known[0]
        if one != reference:
            raise MisfitError(
                f"checkpoints of different models: {first} is {reference}, {label} is {one}; "
                f"{remedy}"
            )


def check_base(base: str, config: Json, checkpoint: str, own: Json) -> None:
    """Raise MisfitError when the base cannot be the model that a checkpoint was trained from."""
    theirs, ours = identity(config, "model"), identity(own, "model")
    if theirs is None or ours is None:
        return
    a, b = dict(theirs.sizes), dict(ours.sizes)
    for name in _SIZES:
        if name in a and name in b and a[name] != b[name]:
            raise MisfitError(
                f"the base {base} does not fit: its {name} is {a[name]}, that of {checkpoint} is "
                f"{b[name]}; give the model that this run started from with --base"
            )
    if theirs.model != ours.model:
        raise MisfitError(
            f"the base {base} does not fit: it is {theirs.model}, {checkpoint} is {ours.model}; "
            "give the model that this run started from with --base"
        )


def dtype(config: Json) -> str | None:
    """The dtype that a configuration names, as safetensors spells it."""
    name = config.get("dtype") or config.get("torch_dtype")
    return _DTYPES.get(str(name))
