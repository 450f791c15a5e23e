"""What the names of a folder's files say about the model in it, on a disk or on the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from relex_merge.checkpoints.series import Kind

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_PICKLES = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_FSDP = re.compile(r"model_world_size_\d+_rank_\d+\.pt")

# What this package writes beside the weights.
REPORT = "relex_report.json"
RECIPE = "mergekit_config.yml"
CARD = "README.md"
FIGURE = "relex_report.png"
GRAM = "relex_gram.safetensors"

# What transformers writes beside the weights.
TOKENIZER = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)
VOCABULARY = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
CHAT_TEMPLATE = ("chat_template.jinja", "chat_template.json")
PROCESSOR = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)
GENERATION = ("generation_config.json",)


@dataclass(frozen=True)
class Weights:
    """The files that hold a checkpoint's weights."""

    kind: Kind
    files: tuple[str, ...]


def weights_among(names: Iterable[str]) -> Weights | None:
    """The weights among the files of one folder: a whole model's before an adapter's."""
    names = sorted(names)
    for pattern in (_SAFETENSORS, _PICKLES):
        files = tuple(name for name in names if pattern.fullmatch(name))
        if files:
            return Weights("model", files)
    if ADAPTER_CONFIG in names:
        for name in ADAPTER_WEIGHTS:
            if name in names:
                return Weights("adapter", (name,))
    if INDEXES[0] in names:  # shards may have any name
        files = tuple(name for name in names if name.endswith(".safetensors"))
        return Weights("model", files) if files else None
    return None


def is_model_folder(names: Iterable[str]) -> bool:
    """Whether a folder is meant to hold a model, be it there or not."""
    names = set(names)
    return CONFIG in names or ADAPTER_CONFIG in names or weights_among(names) is not None


def has_fsdp_shards(names: Iterable[str]) -> bool:
    """Whether verl has saved a model in the shards of its ranks here."""
    return any(_FSDP.fullmatch(name) for name in names)
