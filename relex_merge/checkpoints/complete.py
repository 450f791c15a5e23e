"""What a finished output is: the check that stands before anything is published.

A folder passes when its configuration parses, its weights are complete, and every weight file is
as long as its own header says. That is decided from headers and file sizes; no weight is read.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from relex_merge.checkpoints.configs import config_name, read_json
from relex_merge.checkpoints.files import (
    CHAT_TEMPLATE,
    CONFIG,
    GENERATION,
    GRAM,
    INDEXES,
    PROCESSOR,
    REPORT,
    TOKENIZER,
    Weights,
    weights_among,
)
from relex_merge.errors import RelexError

_CONFIGS = ("config.json", "adapter_config.json")
_WEIGHTS = (".safetensors", ".bin")
_INDEX = (".safetensors.index.json", ".bin.index.json")
_SHARD = re.compile(r"(?P<stem>.+)-\d+-of-\d+(?P<suffix>\.safetensors|\.bin)")
TEMPORARY = re.compile(
    r"(?i).*(\.tmp|\.temp|\.part|\.partial|\.incomplete|\.lock|~)|(tmp|temp)[-_.].*"
)


@dataclass(frozen=True)
class Finished:
    """A folder that passed.

    Attributes:
        folder: where it is.
        files: what belongs to it, as paths relative to the folder with "/" between the parts.
        report: content of ``relex_report.json``; None where another merge method made the folder.
    """

    folder: Path
    files: tuple[str, ...]
    report: dict[str, Any] | None

    @property
    def is_adapter(self) -> bool:
        """Whether it is a PEFT adapter instead of a model."""
        return "config.json" not in self.files


def check_finished(folder: Path) -> Finished:
    """Checks that ``folder`` is a complete model; hidden files are no part of one.

    Raises:
        RelexError: it is not; the message names the file.
    """
    if not folder.is_dir():
        raise RelexError(f"{folder} is not a folder; run the recipe first, then push its output")
    files = _files(folder)
    report = _json_object(folder / REPORT) if REPORT in files else None
    configs = [name for name in _CONFIGS if name in files]
    if not configs:
        raise RelexError(
            f"{folder} has no config.json, so it is not a finished output; run the recipe again"
        )
    for name in configs:
        _json_object(folder / name)
    weights = [name for name in files if name.endswith(_WEIGHTS)]
    if not {*weights} - {GRAM}:
        raise RelexError(f"{folder} holds no weights (.safetensors); run the recipe again")
    tensors = {name: _tensor_names(folder / name) for name in weights}
    indexed = {
        shard
        for name in files
        if name.endswith(_INDEX)
        for shard in _check_index(folder, name, tensors)
    }
    for name in weights:
        if _SHARD.fullmatch(name) and name not in indexed:
            raise RelexError(
                f"{folder / name} is a shard that no index names; it is left over from another "
                "output, or the index is missing: run the recipe again into an empty folder"
            )
    return Finished(folder, files, report)


def _files(folder: Path) -> tuple[str, ...]:
    """Every visible file below ``folder``."""
    names = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_dir() or any(part.startswith(".") for part in relative.parts):
            continue
        if TEMPORARY.fullmatch(path.name) or not path.is_file():
            raise RelexError(
                f"{path} is an unfinished file, so the output is not complete; run the recipe "
                "again, or delete the file if it is none of the model's"
            )
        names.append(relative.as_posix())
    return tuple(names)


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RelexError(f"{path} cannot be read ({error}); run the recipe again") from error
    if not isinstance(value, dict):
        raise RelexError(f"{path} does not hold a JSON object; run the recipe again")
    return value


def _tensor_names(path: Path) -> set[str] | None:
    """Tensors in a weight file, from its header; None for ``.bin``, which has no such header."""
    from safetensors import SafetensorError, safe_open

    if path.suffix == ".bin":
        if not zipfile.is_zipfile(path):
            raise RelexError(f"{path} is truncated or corrupt; run the recipe again")
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            return set(file.keys())
    except (OSError, SafetensorError) as error:
        raise RelexError(
            f"{path} is truncated or corrupt ({error}); run the recipe again"
        ) from error


def _check_index(folder: Path, index: str, tensors: dict[str, set[str] | None]) -> set[str]:
    """Shards that an index names, each one present and holding the tensors the index promises."""
    weight_map = _json_object(folder / index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise RelexError(f"{folder / index} has no weight_map; run the recipe again")
    shards = set()
    for tensor, shard in weight_map.items():
        name = (PurePosixPath(index).parent / str(shard)).as_posix()
        if name not in tensors:
            raise RelexError(
                f"{folder / index} names the shard {shard}, which is not in the folder; "
                "run the recipe again"
            )
        held = tensors[name]
        if held is not None and tensor not in held:
            raise RelexError(
                f"{folder / name} lacks the tensor {tensor} that {index} promises; "
                "run the recipe again"
            )
        shards.add(name)
    return shards


_SHARD_OF = re.compile(r".+-\d+-of-(\d+)\.(safetensors|bin)")


def missing_part(folder: Path, weights: Weights) -> str | None:
    """What a checkpoint lacks, or None when it is whole.

    Whole means: no temporary file, a configuration, JSON files that parse, every safetensors file
    as long as its header says, every ``.bin`` with the directory at its end, and of shards all that
    the index names, with the index.
    """
    names = names_of(folder, weights)
    temporary = [p.name for p in folder.iterdir() if p.is_file() and TEMPORARY.fullmatch(p.name)]
    if temporary:
        return f"{temporary[0]} is a file that is being written"
    if config_name(weights.kind) not in names:
        return f"it has no {config_name(weights.kind)}"
    for name in names:
        if name.endswith(".json") and not _parses(folder / name):
            return f"{name} is no whole JSON file"
    return _missing_shard(folder, weights, names) or _broken(folder, weights)


def _parses(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


def _missing_shard(folder: Path, weights: Weights, names: tuple[str, ...]) -> str | None:
    """transformers writes the index after the shards, other writers before them."""
    index = next((name for name in INDEXES if name in names), None)
    if index is not None:
        places = json.loads((folder / index).read_text(encoding="utf-8")).get("weight_map") or {}
        missing = sorted({str(file) for file in places.values()} - set(weights.files))
        return f"{missing[0]} is not there, which {index} names" if missing else None
    shard = next((match for file in weights.files if (match := _SHARD_OF.fullmatch(file))), None)
    if shard and int(shard[1]) > 1:
        return f"{shard[0]} is a shard, and there is no index"
    return None


def _broken(folder: Path, weights: Weights) -> str | None:
    try:
        dtype_of(folder, weights.files)
    except BrokenWeightsError as error:
        return str(error)
    for file in weights.files:
        if file.endswith(".bin") and not zipfile.is_zipfile(folder / file):
            return f"{file} is not whole"
    return None


class BrokenWeightsError(Exception):
    """A file is not a whole safetensors file; the message says which."""


def dtype_of(folder: Path, files: Sequence[str]) -> str | None:
    """The dtype of most numbers, as safetensors spells it (BF16); None for ``.bin`` files.

    Raises BrokenWeightsError for a file that is still being written, or broken.
    """
    from safetensors import SafetensorError, safe_open

    numbers: Counter[str] = Counter()
    for file in files:
        if not file.endswith(".safetensors"):
            continue
        try:
            with safe_open(folder / file, framework="numpy") as tensors:
                for name in tensors.keys():  # noqa: SIM118  # no mapping
                    tensor = tensors.get_slice(name)
                    numbers[tensor.get_dtype()] += math.prod(tensor.get_shape())
        except (SafetensorError, OSError) as error:
            raise BrokenWeightsError(f"{file} is not whole ({error})") from error
    return numbers.most_common(1)[0][0] if numbers else None


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
