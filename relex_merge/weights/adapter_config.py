"""``adapter_config.json``: what kind of adapter it is, and the scaling of each of its modules."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relex_merge.checkpoints.files import ADAPTER_CONFIG
from relex_merge.checkpoints.json_files import parse_object
from relex_merge.checkpoints.sharded import LORA_META, Sharded
from relex_merge.errors import RelexError
from relex_merge.weights.names import target_modules

# Settings under which an adapter is more (or other) than a delta s·B·A on the base's own weights.
_REFUSED = {
    "layer_replication": "its layers are copies of the base's",
    "target_parameters": "it adapts parameters that are no module's weight",
    "trainable_token_indices": "it replaces single rows of the embeddings",
    "lora_bias": "its B has a bias of its own",
    "use_qalora": "it pools the input of A",
    "alora_invocation_tokens": "it acts on some tokens only, so no weight of the model is its own",
    "arrow_config": "it routes every token to another adapter",
    "use_bdlora": "its factors are block-diagonal",
    "megatron_config": "its layers are cut for Megatron",
    "kasa_config": "its delta is not a product of two factors",
    "monteclora_config": "its delta is drawn at random",
}
# Initialisations that also take something out of the base's weights, so that δ = s(BA − B₀A₀).
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_LONGEST = 300  # characters of a value in messages
# What values of wrong types, a text that is no JSON, and a pattern that is no regular expression
# raise.
_BROKEN = (ValueError, LookupError, TypeError, AttributeError, OverflowError, re.error)


@dataclass(frozen=True)
class AdapterConfig:
    """What of ``adapter_config.json`` enters the arithmetic.

    Attributes:
        base: the model it was trained on, as it names it.
        rank: r.
        alpha: α.
        rslora: whether s is α/√r instead of α/r.
        transposed: whether square weights are stored (in, out).
        dora: whether the weight is rescaled row by row (DoRA), so that δ is no product of two
            factors.
        alpha_pattern: α of modules that have their own, by regular expressions of their names.
        content: all that the file says.
    """

    base: str | None
    rank: int
    alpha: float
    rslora: bool
    transposed: bool
    dora: bool
    alpha_pattern: Mapping[str, float]
    content: Mapping[str, Any]

    def scaling(self, module: str, rank: int) -> float:
        """Return s of a module with factors of ``rank``.

        That is α/r, or α/√r for rsLoRA (arXiv 2312.03732).
        """
        from peft.utils.other import get_pattern_key

        key = get_pattern_key(list(self.alpha_pattern), module)
        alpha = self.alpha_pattern.get(key, self.alpha)
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def read_adapter_config(folder: Path, label: str) -> AdapterConfig:
    """Return what ``adapter_config.json`` says.

    Args:
        folder: holds the file.
        label: names the adapter in messages.

    Raises:
        RelexError: the file cannot be read, or describes an adapter whose delta is not s·B·A.
    """
    try:
        return _read(parse_object((folder / ADAPTER_CONFIG).read_bytes()), label)
    except OSError as error:
        raise RelexError(
            f"{label} has no {ADAPTER_CONFIG}, which says how its factors are scaled; save the "
            "adapter with PEFT's save_pretrained"
        ) from error
    except _BROKEN as error:
        raise _broken(f"{ADAPTER_CONFIG} is not what PEFT writes", label, error) from error


def read_sharded_config(sharded: Sharded, label: str) -> AdapterConfig:
    """Return what is written beside an adapter in shards.

    That is PEFT's ``adapter_config.json``, else verl's ``lora_train_meta.json``, which names rank
    and α alone; the modules are then those that have factors in the shards.

    Args:
        sharded: the checkpoint.
        label: names the adapter in messages.

    Raises:
        RelexError: there is neither, or it cannot be read.
    """
    folder = sharded.adapter_folder
    if folder is not None:
        return read_adapter_config(folder, label)
    path = sharded.checkpoint / LORA_META
    try:
        said = parse_object(path.read_bytes())
        content = {
            "peft_type": "LORA",
            "task_type": said.get("task_type") or "CAUSAL_LM",
            "base_model_name_or_path": None,
            "r": said["r"],
            "lora_alpha": said["lora_alpha"],
            "target_modules": target_modules(sharded.names),
        }
        return _read(content, label)
    except OSError as error:
        raise RelexError(
            f"{label} holds an adapter in shards, and neither {ADAPTER_CONFIG} nor {LORA_META} "
            f"stands beside them to say how it is scaled; copy one of them to {sharded.address}"
        ) from error
    except _BROKEN as error:
        raise _broken(f"{LORA_META} is not what verl writes", label, error) from error


def _broken(what: str, label: str, error: Exception) -> RelexError:
    return RelexError(f"{label}: {what} ({repr(error)[:_LONGEST]}); fetch it again")


def _read(content: Mapping[str, Any], label: str) -> AdapterConfig:
    """Return what a configuration says. Raises one of ``_BROKEN`` for values of wrong types."""
    kind = _text(content["peft_type"])
    if kind != "LORA":
        raise RelexError(
            f"{label} is a {kind[:_LONGEST]} adapter; only LoRA has a delta s·B·A to follow"
        )
    _refuse(content, label)
    base = content.get("base_model_name_or_path")
    return AdapterConfig(
        base=None if base is None else _text(base),
        rank=int(_number(content["r"], least=1)),
        alpha=_number(content["lora_alpha"]),
        rslora=bool(content.get("use_rslora")),
        transposed=bool(content.get("fan_in_fan_out")),
        dora=bool(content.get("use_dora")),
        alpha_pattern=_pattern(content.get("alpha_pattern") or {}),
        content=content,
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _number(value: Any, least: float = -math.inf) -> float:
    """Return a finite number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no number")
    if not math.isfinite(value) or value < least:
        raise ValueError(f"{value!r} is no rank or scaling")
    return float(value)


def _pattern(value: Mapping[str, Any]) -> dict[str, float]:
    """Return α of the modules that have their own. Raises re.error for no regular expression."""
    from peft.utils.other import get_pattern_key

    found = {key: _number(alpha) for key, alpha in value.items()}
    get_pattern_key(list(found), "")  # which compiles them
    return found


def _refuse(content: Mapping[str, Any], label: str) -> None:
    for key, reason in _REFUSED.items():
        if content.get(key):
            raise RelexError(
                f"{label} uses {key}: {reason}; merge each adapter into the base and extrapolate "
                "the full models"
            )
    start = str(content.get("init_lora_weights", "")).lower()[:_LONGEST]
    if start.startswith(_CHANGES_BASE):
        raise RelexError(
            f"{label} was initialised by {start}, which changes the base's weights too; save it "
            "with path_initial_model_for_weight_conversion, or extrapolate merged models"
        )
