"""What config.json and adapter_config.json say: which model it is, and what it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from relex_merge.checkpoints.files import ADAPTER_CONFIG, CONFIG, TRAINED
from relex_merge.checkpoints.json_files import Json, read_json
from relex_merge.checkpoints.series import Kind
from relex_merge.errors import RelexError

_SIZES = ("hidden_size", "d_model", "n_embd", "num_hidden_layers", "n_layer", "num_layers")
_NAMES = ("model_type", "base_model_name_or_path", "dtype", "torch_dtype")
_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}


@dataclass(frozen=True)
class Identity:
    """What all checkpoints of a run have in common.

    Attributes:
        model: the architecture; of an adapter the name of its base.
        sizes: hidden size and number of layers, as the configuration names them; none of an
            adapter.
    """

    model: str
    sizes: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return " ".join([self.model, *(f"{name} {value}" for name, value in self.sizes)])


class MisfitError(RelexError):
    """Models that are not of one run."""


def config_name(kind: Kind) -> str:
    """Return the name of the file that says which model a checkpoint is."""
    return ADAPTER_CONFIG if kind == "adapter" else CONFIG


def read_config(path: Path, label: str | None = None) -> Json:
    """Return what a config.json or adapter_config.json says, empty where there is no such file.

    Args:
        path: the file.
        label: what to call it in messages; by default its path.

    Raises:
        RelexError: it is no JSON object, or what it says about the model has the wrong type.
    """
    config = read_json(path, label)
    for part, where in ((config, ""), (config.get("text_config"), "text_config.")):
        if isinstance(part, dict):
            _check(part, f"{label or path}: {where}")
    return config


def _check(config: Json, where: str) -> None:
    """Raise RelexError for a value that :func:`identity` or :func:`dtype` could not use."""
    for key in (*_NAMES, *_SIZES, "architectures", "text_config"):
        value = config.get(key)
        if value is None:
            continue
        if key in _NAMES:
            right, wanted = isinstance(value, str), "a name"
        elif key == "architectures":
            right = isinstance(value, list) and all(isinstance(name, str) for name in value)
            wanted = "a list of names"
        elif key == "text_config":
            right, wanted = isinstance(value, dict), "an object"
        else:
            right = isinstance(value, int) and not isinstance(value, bool) and value > 0
            wanted = "a number of 1 or more"
        if not right:
            raise RelexError(f"{where}{key} is {str(value)[:60]!r}, not {wanted}; fetch it again")


def check_unquantized(config: Json, label: str) -> None:
    """Raise MisfitError for the configuration of quantized weights: bitsandbytes, GPTQ, FP8, …."""
    said = config.get("quantization_config")
    if said:
        method = said.get("quant_method") if isinstance(said, dict) else None
        named = f"by {method!s:.40}, as quantization_config" if method else "as quantization_config"
        raise MisfitError(f"{label} is quantized ({named} in {CONFIG} says); {TRAINED}")


def identity(config: Json, kind: Kind) -> Identity | None:
    """Return what a configuration says about the model; None for one that says nothing."""
    if kind == "adapter":
        # A base may be named by its place on one machine and another; ranks may differ in a series.
        base = PurePosixPath(config.get("base_model_name_or_path") or "").name
        return Identity(f"adapter of {base}", ()) if base else None
    name = next(iter(config.get("architectures") or ()), config.get("model_type"))
    sizes = {**(config.get("text_config") or {}), **config}
    known = tuple((size, sizes[size]) for size in _SIZES if sizes.get(size) is not None)
    return Identity(name, known) if name else None


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
    """Return the dtype that a configuration names, as safetensors spells it."""
    name = config.get("dtype") or config.get("torch_dtype") or ""
    return _DTYPES.get(name.removeprefix("torch."))
