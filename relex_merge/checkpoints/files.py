"""Which files of a folder are the model's weights: asked once, for a disk and for the Hub.

The answer follows mergekit and transformers: safetensors before pickles, an index of shards before
a single file, a whole model before an adapter beside it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import constants

from relex_merge.checkpoints.json_files import parse_object
from relex_merge.checkpoints.series import Kind
from relex_merge.errors import RelexError
from relex_merge.formatting import some

CONFIG = constants.CONFIG_NAME
SINGLE = constants.SAFETENSORS_SINGLE_FILE
INDEX = constants.SAFETENSORS_INDEX_FILE
# PEFT has these names as constants too, but to import them is to import torch.
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
TRAINER_STATE = "trainer_state.json"  # transformers writes it last

# What this package writes beside the weights.
REPORT = "relex_report.json"
RECIPE = "mergekit_config.yml"
CARD = constants.REPOCARD_NAME
FIGURE = "relex_report.png"
GRAM = "relex_gram.safetensors"
EVALUATION_FIGURE = "relex_evaluation.png"
EVAL_RESULTS = ".eval_results"  # the Hub's folder of benchmark results

# What TrajectoryCallback leaves in the trainer's output folder.
SERIES_FOLDER = "relex_series"
SERIES_RECIPE = "relex_recipe.yml"

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

# Everything of a checkpoint but its weights: configuration, tokenizer, chat template, card.
SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.py", CARD)

# Models packed for inference, most of them quantized: nothing that a trainer writes.
_PACKED = {
    ".gguf": "GGUF",
    ".ggml": "GGML",
    ".onnx": "ONNX",
    ".tflite": "TFLite",
    ".engine": "TensorRT",
    ".mlpackage": "Core ML",
}
TRAINED = "extrapolation needs the unquantized checkpoints that the trainer wrote"

# Folders that trainers keep beside the policy: no part of its series unless a pattern asks for it.
_BESIDE = {"critic", "_critic", "reward", "reward_model", "ref", "reference"}
_OF_OTHERS = {"node_modules", "wandb", "__pycache__"}
_OPTIMIZER = re.compile(r"optim(izer)?(_\d+)?")  # accelerate's and verl's folders of its state


class NotWholeError(Exception):
    """The weights of a folder cannot be read; the message says why, and not which folder it is."""


@dataclass(frozen=True)
class Weights:
    """The files that hold a checkpoint's weights.

    Attributes:
        kind: whether it is a whole model or an adapter.
        files: names, ascending; they may be missing where an index names them.
        index: the file that says which shard holds which tensor, None without one.
        places: tensor → file, as the index has it; empty where there is none, or it was not read.
    """

    kind: Kind
    files: tuple[str, ...]
    index: str | None = None
    places: Mapping[str, str] = field(default_factory=dict)

    @property
    def safetensors(self) -> bool:
        """Whether they are safetensors files, of which ranges can be read."""
        return all(file.endswith(".safetensors") for file in self.files)

    @property
    def orphans(self) -> bool:
        """Whether they are shards of a model whose index is missing."""
        return self.index is None and any(map(is_shard, self.files))


@dataclass(frozen=True)
class _Format:
    """A way to store a model: in one file, or in shards with an index."""

    single: str

    @property
    def index(self) -> str:
        return f"{self.single}.index.json"

    @property
    def suffix(self) -> str:
        return Path(self.single).suffix

    def is_shard(self, name: str) -> bool:
        """Whether a file is called as transformers calls shards, model-00001-of-00002."""
        stem = re.escape(Path(self.single).stem)
        return re.fullmatch(rf"{stem}-\d+-of-\d+\{self.suffix}", name) is not None


_FORMATS = (_Format(SINGLE), _Format(constants.PYTORCH_WEIGHTS_NAME))


def shard_name(number: int, total: int) -> str:
    """Return what transformers calls a shard, numbered from 1; one alone has a name of its own."""
    suffix = f"-{number:05d}-of-{total:05d}" if total > 1 else ""
    return constants.SAFETENSORS_WEIGHTS_FILE_PATTERN.format(suffix=suffix)


def is_shard(name: str) -> bool:
    """Whether a file is called as one of several parts of a model."""
    return any(form.is_shard(name) for form in _FORMATS)


def index_among(names: Collection[str]) -> str | None:
    """Return the index of shards that counts in a folder with these files, None without one."""
    for form in _FORMATS:
        if form.index in names:
            return form.index
        if form.single in names:
            return None
    return None


def weights_among(names: Iterable[str], places: Mapping[str, str] | None = None) -> Weights | None:
    """Return the weights among the files of one folder, None where there are none.

    Args:
        names: all files of the folder.
        places: tensor → shard, of the index that :func:`index_among` names; the names of the files
            must do where it was not read.
    """
    names = sorted(names)
    shards = {form: tuple(filter(form.is_shard, names)) for form in _FORMATS}
    for form in _FORMATS:
        if form.index in names:
            # shards may have any name
            guess = shards[form] or tuple(n for n in names if n.endswith(form.suffix))
            files = tuple(sorted(set(places.values()))) if places else guess
            return Weights("model", files, form.index, places or {}) if files else None
        if form.single in names:
            return Weights("model", (form.single,))
    if ADAPTER_CONFIG in names:
        for name in ADAPTER_WEIGHTS:
            if name in names:
                return Weights("adapter", (name,))
    orphans = next(filter(None, shards.values()), None)
    return Weights("model", orphans) if orphans else None


def find_weights(names: Collection[str], folder: Path) -> Weights | None:
    """Return the weights of a folder, by its index where it has one; None without any.

    Args:
        names: the files that there are, in ``folder`` or at the commit that it is a copy of.
        folder: holds the index.

    Raises:
        NotWholeError: the index is none, or names a shard that is not there.
    """
    index = index_among(names)
    weights = weights_among(names, read_index(folder / index) if index else None)
    missing = [file for file in weights.files if file not in names] if weights else []
    if missing:
        raise NotWholeError(f"no {missing[0]}, which its index names")
    return weights


def read_index(path: Path) -> dict[str, str]:
    """Return tensor → shard, as an index of shards has it.

    Raises:
        NotWholeError: the file holds anything but an object whose ``weight_map`` is an object, not
            empty, of names of weight files in the same folder.
    """
    try:
        places = parse_object(path.read_bytes(), unique=True).get("weight_map")
    except (OSError, ValueError) as error:
        raise NotWholeError(f"{path.name} is not readable as an index of shards ({error})") from (
            error
        )
    if not isinstance(places, dict) or not places:
        raise NotWholeError(f"{path.name} is no index of shards: it has no weight_map")
    suffix = Path(path.name.removesuffix(".index.json")).suffix
    for tensor, file in places.items():
        if not isinstance(file, str) or not file.endswith(suffix):
            raise NotWholeError(
                f"{path.name} is no index of shards: it puts {tensor} into {file!r}, which is not "
                f"the name of a {suffix} file"
            )
        if Path(file).name != file or "\\" in file or "\0" in file:
            raise NotWholeError(f"{path.name} names {file!r}, which lies outside its folder")
    return places


def total(sizes: Iterable[int | None]) -> int | None:
    """Return the sum of sizes; None where one of them is not known."""
    known = list(sizes)
    return None if None in known else sum(size or 0 for size in known)


def require_weights(names: Collection[str], folder: Path, label: str) -> Weights:
    """Return the weights of a checkpoint that is to be read; as :func:`find_weights`.

    Raises:
        RelexError: there are none, or they are not whole; the message begins with ``label``.
    """
    try:
        weights = find_weights(names, folder)
    except NotWholeError as error:
        raise RelexError(f"{label}: {error}; fetch it again") from error
    if weights is None:
        raise RelexError(f"{label} {_nothing(names)}")
    if weights.orphans:
        raise RelexError(
            f"{label}: {weights.files[0]} is a shard, and there is no index; fetch it again"
        )
    return weights


def _nothing(names: Collection[str]) -> str:
    """What to say of a folder without weights."""
    if ADAPTER_CONFIG in names and CONFIG not in names:
        return f"is an adapter without {ADAPTER_WEIGHTS[0]}"
    if not set(ADAPTER_WEIGHTS).isdisjoint(names):
        return f"has no {ADAPTER_CONFIG}, which says how its factors are scaled"
    if packed := packed_among(names):
        return f"holds {packed}; {TRAINED}, as safetensors"
    return (
        f"holds no weights ({SINGLE}, its shards with an index, {constants.PYTORCH_WEIGHTS_NAME}, "
        f"or an adapter); it holds {some(sorted(names))}"
    )


def is_adapter(names: Collection[str]) -> bool:
    """Whether a folder holds a PEFT adapter, and not a model that has one beside its weights."""
    weights = weights_among(names)
    if weights is not None:
        return weights.kind == "adapter"
    return not {ADAPTER_CONFIG, *ADAPTER_WEIGHTS}.isdisjoint(names)


def packed_among(names: Iterable[str]) -> str | None:
    """Say that a model among these files is packed for inference; None where there is none."""
    for name in sorted(names):
        if kind := _PACKED.get(Path(name).suffix.lower()):
            return f"{name}, a {kind} file, packed for inference (most of them quantized)"
    return None


def is_model_folder(names: Collection[str]) -> bool:
    """Whether a folder is meant to hold a model, be it there or not."""
    named = CONFIG in names or ADAPTER_CONFIG in names or weights_among(names) is not None
    return named or packed_among(names) is not None


def is_beside(name: str) -> bool:
    """Whether a folder of this name is no part of a series."""
    lower = name.lower()
    beside = lower in _BESIDE | _OF_OTHERS or _OPTIMIZER.fullmatch(lower) is not None
    return beside or name.startswith(".")
