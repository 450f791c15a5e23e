"""mergekit's architecture definition for a base model, and its configuration."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relex_merge.checkpoints.files import INDEX, SINGLE
from relex_merge.errors import RelexError

if TYPE_CHECKING:
    from mergekit.architecture import ModelArchitecture
    from mergekit.options import MergeOptions


_LONGEST = 500  # characters of what transformers has to say


def read_config(folder: Path, label: str, *, trust_remote_code: bool) -> Any:
    """The transformers configuration of a model folder. Raises RelexError."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers' validators have exceptions of their own
        if "trust_remote_code" in str(error):
            raise RelexError(
                f"{label} brings its own code; give --trust-remote-code if you read and trust it"
            ) from error
        raise RelexError(
            f"{label}: no usable config.json: {' '.join(str(error).split())[:_LONGEST]}"
        ) from error
    if len(config.architectures or ()) != 1:
        raise RelexError(f"{label}: config.json must name one entry under architectures")
    if getattr(config, "quantization_config", None):
        raise RelexError(
            f"{label} is quantized (quantization_config in config.json); extrapolation needs the "
            "unquantized checkpoints"
        )
    return config


def architecture_of(
    config: Any, folder: Path, tensors: Iterable[str], options: MergeOptions
) -> ModelArchitecture:
    """Mergekit's definition, or what mergekit infers from the tensor names.

    folder: holds the base's config.json; its weights need not be there.
    """
    from mergekit.architecture import arch_info_for_config

    found = arch_info_for_config(config)
    return found or _infer(folder, tensors, options)


def _infer(folder: Path, tensors: Iterable[str], options: MergeOptions) -> ModelArchitecture:
    # mergekit reads tensor names from an index on the disk; for a streamed base there is none yet.
    from mergekit.architecture import infer_architecture_info
    from mergekit.common import ModelReference

    with tempfile.TemporaryDirectory() as scratch:
        for file in folder.glob("*.json"):
            shutil.copyfile(file, Path(scratch, file.name))
        for file in folder.glob("*.py"):
            shutil.copyfile(file, Path(scratch, file.name))
        index = {"weight_map": dict.fromkeys(tensors, SINGLE)}
        Path(scratch, INDEX).write_text(json.dumps(index))
        reference = ModelReference.parse(scratch)
        return infer_architecture_info((reference,), reference, options)
