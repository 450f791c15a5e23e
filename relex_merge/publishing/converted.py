"""A checkpoint written anew as transformers and PEFT read it: from shards, or in another dtype.

The weights are streamed from where they lie into safetensors files; configuration and tokenizer
come from beside the shards, and where a trainer leaves none there, from the base.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from relex_merge.checkpoints.complete import names_of, weights_of
from relex_merge.checkpoints.files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CONFIG,
    Weights,
)
from relex_merge.checkpoints.json_files import parse_object
from relex_merge.checkpoints.locate import locate
from relex_merge.checkpoints.series import Kind
from relex_merge.checkpoints.sharded import Sharded, require_sharded
from relex_merge.errors import RelexError, disk_errors
from relex_merge.weights.adapter_config import read_adapter_config, read_sharded_config
from relex_merge.weights.folder import open_folder
from relex_merge.weights.sharded import open_sharded
from relex_merge.weights.source import Source
from relex_merge.weights.whole import holds_same, write_whole

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_HEAD = "lm_head.weight"
_EMBEDDINGS = ("model.embed_tokens.weight", "transformer.wte.weight")


def convert(
    checkpoint: Path, folder: Path, *, dtype: str | None = None, base: str | None = None
) -> None:
    """Write a checkpoint into an empty folder.

    Args:
        checkpoint: the folder of a model or an adapter, in shards or as a whole.
        folder: where to.
        dtype: ``float32``, ``bfloat16`` or ``float16``; by default as it is stored.
        base: the model that the run started from, for configuration and tokenizer where the
            checkpoint has none.

    Raises:
        RelexError: the checkpoint cannot be read, there is no configuration, or the disk does not
            take it.
    """
    label = str(checkpoint)
    sharded = require_sharded(checkpoint, label)
    if sharded is None:
        kind, source, companions = _whole(checkpoint, label)
    else:
        kind = sharded.kind
        source, companions = open_sharded(sharded, label), sharded.companions
    wanted = DTYPES[dtype] if dtype else None
    with disk_errors(folder):
        if kind == "adapter":
            _write_adapter(source, folder, wanted, _adapter_config(checkpoint, sharded, label))
            _copy(companions, folder, "adapter")
            return
        if not (companions / CONFIG).is_file():
            companions = _companions_of_base(base, label)
        _copy(companions, folder, "model")
        config = parse_object((folder / CONFIG).read_bytes())
        write_whole(source, folder, dtype=wanted, without=_tied(source, config))
        _write_json(folder / CONFIG, _with_dtype(config, source, wanted))


def _whole(checkpoint: Path, label: str) -> tuple[Kind, Source, Path]:
    weights = weights_of(checkpoint)
    files = weights.files if weights.kind == "adapter" else ()
    return weights.kind, open_folder(checkpoint, label, files), checkpoint


def _companions_of_base(base: str | None, label: str) -> Path:
    """Return a folder with the base's configuration and tokenizer."""
    if base is None:
        raise RelexError(
            f"{label} has no {CONFIG}, as the trainer left it; copy configuration and tokenizer of "
            "the base there, or name the base with --base where the command has that"
        )
    (found,) = locate([base], stream=True)
    if not (found.folder / CONFIG).is_file():
        raise RelexError(f"{label} has no {CONFIG}, and the base {base} has none either")
    return found.folder


def _copy(companions: Path, folder: Path, kind: Kind) -> None:
    """Copy what belongs to a model besides its weights."""
    for name in names_of(companions, Weights(kind, ())):
        if (companions / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(companions / name, folder / name)


def _tied(source: Source, config: dict[str, Any]) -> set[str]:
    """Return the head where it is the embeddings once more: FSDP saves it, and files leave it."""
    if config.get("tie_word_embeddings") is False or _HEAD not in source.tensors:
        return set()
    embeddings = next((name for name in _EMBEDDINGS if name in source.tensors), None)
    return {_HEAD} if embeddings and holds_same(source, embeddings, _HEAD) else set()


def _with_dtype(
    config: dict[str, Any], source: Source, dtype: torch.dtype | None
) -> dict[str, Any]:
    """Return a configuration that names the dtype of the weights beside it."""
    stored = {info.dtype for info in source.tensors.values() if info.dtype.is_floating_point}
    if dtype is None and len(stored) != 1:
        return config
    name = str(dtype or stored.pop()).removeprefix("torch.")
    key = "torch_dtype" if "torch_dtype" in config else "dtype"
    return {**config, key: name}


def _adapter_config(checkpoint: Path, sharded: Sharded | None, label: str) -> dict[str, Any]:
    if sharded is None:
        return dict(read_adapter_config(checkpoint, label).content)
    return dict(read_sharded_config(sharded, label).content)


def _write_adapter(
    source: Source, folder: Path, dtype: torch.dtype | None, config: dict[str, Any]
) -> None:
    write_whole(source, folder, dtype=dtype, file=ADAPTER_WEIGHTS[0])
    _write_json(folder / ADAPTER_CONFIG, config)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
