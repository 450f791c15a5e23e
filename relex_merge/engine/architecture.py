"""mergekit's architecture definition for a base model, and its configuration.

``config.json`` comes from anywhere, and what reads it (transformers, mergekit, a model's own code)
fails in its own way on values of wrong types: every such failure is an error that names the file.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relex_merge.checkpoints.configs import check_unquantized
from relex_merge.checkpoints.files import CONFIG, INDEX, SINGLE
from relex_merge.checkpoints.json_files import parse_object
from relex_merge.errors import RelexError

if TYPE_CHECKING:
    from mergekit.architecture import ModelArchitecture
    from mergekit.options import MergeOptions

MOST_LAYERS = 10_000
"""Layers of a model; transformers makes a list of all of them before anything can be checked."""
_LONGEST = 300  # characters of what another library has to say


@contextmanager
def config_errors(label: str) -> Iterator[None]:
    """Turn any failure of what reads a configuration into a RelexError that names the file.

    Args:
        label: names the model in messages.
    """
    try:
        yield
    except RelexError:
        raise
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise RelexError(
                f"{label} brings its own code; give --trust-remote-code if you read and trust it"
            ) from error
        text = " ".join(str(error).split())[:_LONGEST]
        raise RelexError(
            f"{label}: no usable {CONFIG}: {type(error).__name__}: {text}; fetch it again, or copy "
            "that of another checkpoint of the run"
        ) from error


def read_config(folder: Path, label: str, *, trust_remote_code: bool) -> Any:
    """Return the transformers configuration of a model folder.

    Args:
        folder: holds ``config.json``.
        label: names the model in messages.
        trust_remote_code: whether code in the folder may run.

    Raises:
        RelexError: there is none, or not one that says which architecture the model has.
    """
    from transformers import AutoConfig

    with config_errors(label):
        said = parse_object((folder / CONFIG).read_bytes())
        check_unquantized(said, label)
        _check_layers(said, label)
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
        architectures = config.architectures or []
        if len(architectures) != 1 or not isinstance(architectures[0], str):
            raise RelexError(f"{label}: {CONFIG} must name one entry under architectures")
    return config


def _check_layers(node: Any, label: str) -> None:
    """Raise RelexError when a configuration, or a part of it, gives more layers than any model."""
    for key, value in node.items() if isinstance(node, dict) else ():
        if "layer" in key and isinstance(value, int) and value > MOST_LAYERS:
            raise RelexError(
                f"{label}: {CONFIG} has more than {MOST_LAYERS:,} for {key}, which no "
                "model has; fetch it again"
            )
        _check_layers(value, label)


def architecture_of(
    config: Any, folder: Path, tensors: Iterable[str], options: MergeOptions, label: str
) -> ModelArchitecture:
    """Return mergekit's definition, or what mergekit infers from the tensor names.

    Args:
        config: the base's configuration.
        folder: holds the base's ``config.json``; its weights need not be there.
        tensors: the names of the base's tensors.
        options: mergekit's.
        label: names the base in messages.

    Raises:
        RelexError: the configuration is of no use to mergekit.
    """
    from mergekit.architecture import arch_info_for_config

    with config_errors(label):
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
