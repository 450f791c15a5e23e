"""What of a checkpoint is published: weights, configuration and tokenizer, and nothing else.

A list of what goes, not of what stays: optimizer, scheduler and random states, training arguments,
logs and whatever a trainer may add tomorrow are on no list, so they stay on the disk.
"""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path

from relex_merge.checkpoints.complete import Finished
from relex_merge.checkpoints.configs import config_name, read_json
from relex_merge.checkpoints.files import ADAPTER_CONFIG, CONFIG, INDEXES, Weights, weights_among
from relex_merge.errors import RelexError
from relex_merge.pipeline.companions import CHAT_TEMPLATE, GENERATION, PROCESSOR, TOKENIZER
from relex_merge.publishing.payload import publishable
from relex_merge.report.model_card import hub_id

_TOKENIZERS = (*TOKENIZER, "*.model", "*.tiktoken", "*.spm", "vocab.*", "tekken.json", "bpe.codes")
_TEMPLATES = "additional_chat_templates"  # transformers' folder of named chat templates
_OTHER = (*CHAT_TEMPLATE, *PROCESSOR, *GENERATION)
_NOT_THE_MODELS = "zero_to_fp32.py"  # DeepSpeed's, beside the code of a model


def weights_of(folder: Path) -> Weights:
    """The weights of a checkpoint. Raises RelexError when it has none."""
    names = [path.name for path in folder.iterdir() if path.is_file()]
    weights = weights_among(names)
    if weights is None:
        raise RelexError(
            f"{folder} holds no weights (model.safetensors, its shards, pytorch_model.bin or an "
            "adapter); remove the folder, or leave the step out with --observe"
        )
    return weights


def names_of(folder: Path, weights: Weights) -> tuple[str, ...]:
    """The files that are published, relative to ``folder`` with "/" between the parts."""
    config = config_name(weights.kind)
    index = INDEXES[0] if weights.files[0].endswith(".safetensors") else INDEXES[1]
    wanted = (config, *_TOKENIZERS, *_OTHER, *((index,) if weights.kind == "model" else ()))
    code = config == CONFIG and "auto_map" in read_json(folder / config)
    names = set(weights.files)
    for path in folder.iterdir():
        own_code = code and path.suffix == ".py" and path.name != _NOT_THE_MODELS
        if path.is_file() and (own_code or any(fnmatchcase(path.name, w) for w in wanted)):
            names.add(path.name)
    if (folder / _TEMPLATES).is_dir():
        names |= {f"{_TEMPLATES}/{p.name}" for p in (folder / _TEMPLATES).glob("*.jinja")}
    return tuple(sorted(names))


def contents(folder: Path, repo: str, base: str | None = None) -> dict[str, Path | bytes]:
    """Path in the repo → local file, or new content where that names a local path.

    repo: repo id; base: the model that the run started from, which stands in an adapter's
    configuration in the place of a local folder when it is on the Hub. Raises RelexError when there
    are no weights.
    """
    names = names_of(folder, weights_of(folder))
    files = publishable(Finished(folder, names, None), repo, None)
    if ADAPTER_CONFIG in files and base is not None and hub_id(base):
        config = read_json(folder / ADAPTER_CONFIG)
        if config.get("base_model_name_or_path") != base:
            config["base_model_name_or_path"] = base
            files[ADAPTER_CONFIG] = (json.dumps(config, indent=2) + "\n").encode()
    return files
