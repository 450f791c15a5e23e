"""Whether a checkpoint is whole: told from names, headers and the ends of files.

No weight is read. A checkpoint is whole when it has a configuration, its JSON files parse, no file
has a temporary name, every weight file is as long as its own header says, and of shards there are
all that the index names, with the tensors that it promises.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from relex_merge.checkpoints.configs import config_name
from relex_merge.checkpoints.files import (
    ADAPTER_CONFIG,
    CHAT_TEMPLATE,
    CONFIG,
    EVAL_RESULTS,
    GENERATION,
    PROCESSOR,
    REPORT,
    TOKENIZER,
    NotWholeError,
    Weights,
    find_weights,
    is_shard,
    require_weights,
    weights_among,
)
from relex_merge.checkpoints.json_files import parse_object, peek_json
from relex_merge.checkpoints.locate import local_folder
from relex_merge.checkpoints.sharded import find_sharded
from relex_merge.errors import RelexError

TEMPORARY = re.compile(
    r"(?i).*(\.tmp|\.temp|\.part|\.partial|\.incomplete|\.lock|~)|(tmp|temp)[-_.].*"
)
_WEIGHTS = (".safetensors", ".bin")
_TOKENIZERS = (*TOKENIZER, "*.model", "*.tiktoken", "*.spm", "vocab.*", "tekken.json", "bpe.codes")
_TEMPLATES = "additional_chat_templates"  # transformers' folder of named chat templates
_OTHER = (*CHAT_TEMPLATE, *PROCESSOR, *GENERATION)
_NOT_THE_MODELS = "zero_to_fp32.py"  # DeepSpeed's, beside the code of a model


# the weights


def check_weights(folder: Path, weights: Weights) -> str | None:
    """Look at the headers of all weight files.

    Returns:
        The dtype of most numbers, as safetensors spells it (BF16); None for pickles.

    Raises:
        NotWholeError: a file is missing, still being written or broken, or lacks a tensor that the
            index promises.
    """
    if weights.orphans:
        raise NotWholeError(f"{weights.files[0]} is a shard, and there is no index")
    numbers: Counter[str] = Counter()
    for file in weights.files:
        held = tensors_of(folder / file)
        if held is None:
            continue
        for dtype, shape in held.values():
            numbers[dtype] += math.prod(shape)
        promised = (name for name, place in weights.places.items() if place == file)
        missing = next((name for name in promised if name not in held), None)
        if missing is not None:
            raise NotWholeError(f"{file} lacks the tensor {missing} that {weights.index} promises")
    return numbers.most_common(1)[0][0] if numbers else None


def tensors_of(path: Path) -> dict[str, tuple[str, list[int]]] | None:
    """Return the dtype and shape of every tensor in a weight file; None for a pickle.

    Raises:
        NotWholeError: the file is not as long as its header says, or a pickle without its end.
    """
    from safetensors import SafetensorError, safe_open

    if path.suffix == ".bin":
        if not zipfile.is_zipfile(path):
            raise NotWholeError(f"{path.name} is not whole")
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {name: (s.get_dtype(), s.get_shape()) for name, s in slices.items()}
    except (SafetensorError, OSError) as error:
        raise NotWholeError(f"{path.name} is not whole ({error})") from error


def weights_of(folder: Path) -> Weights:
    """Return the weights of a local checkpoint. Raises RelexError when it has none."""
    names = [path.name for path in folder.iterdir() if path.is_file()]
    return require_weights(names, folder, str(folder))


# a checkpoint of a run


def why_not_whole(folder: Path) -> str | None:
    """Return why a local checkpoint is not whole, in shards or not; None when it is.

    Raises:
        RelexError: it has no weights.
    """
    names = [path.name for path in folder.iterdir()]
    if weights_among(names) is None:
        try:
            found = find_sharded(folder)
            if found is not None:
                found.check()
                return None
        except NotWholeError as error:
            return str(error)
    return missing_part(folder, weights_of(folder))


def missing_part(folder: Path, weights: Weights) -> str | None:
    """Return what a checkpoint lacks to be whole, or None."""
    names = names_of(folder, weights)
    temporary = [p.name for p in folder.iterdir() if p.is_file() and TEMPORARY.fullmatch(p.name)]
    if temporary:
        return f"{temporary[0]} is a file that is being written"
    if config_name(weights.kind) not in names:
        return f"it has no {config_name(weights.kind)}"
    for name in names:
        if name.endswith(".json") and not _parses(folder / name):
            return f"{name} is no whole JSON file"
    try:
        check_weights(folder, weights)
    except NotWholeError as error:
        return str(error)
    return None


def _parses(path: Path) -> bool:
    try:
        parse_object(path.read_bytes())
    except ValueError:
        return False
    return True


def names_of(folder: Path, weights: Weights) -> tuple[str, ...]:
    """Return the files that are published, relative to ``folder`` with "/" between the parts."""
    config = config_name(weights.kind)
    wanted = (config, *_TOKENIZERS, *_OTHER)
    code = config == CONFIG and "auto_map" in peek_json(folder / config)
    names = {*weights.files, *([weights.index] if weights.index else [])}
    for path in folder.iterdir():
        own_code = code and path.suffix == ".py" and path.name != _NOT_THE_MODELS
        if path.is_file() and (own_code or any(fnmatchcase(path.name, w) for w in wanted)):
            names.add(path.name)
    if (folder / _TEMPLATES).is_dir():
        names |= {f"{_TEMPLATES}/{p.name}" for p in (folder / _TEMPLATES).glob("*.jinja")}
    return tuple(sorted(names))


# a finished output


@dataclass(frozen=True)
class Finished:
    """A folder that passed the check that stands before anything is published.

    Attributes:
        folder: where it is.
        files: what belongs to it, as paths relative to the folder with "/" between the parts.
        report: content of ``relex_report.json``; None where another merge method made the folder.
    """

    folder: Path
    files: tuple[str, ...]
    report: dict[str, object] | None

    @property
    def is_adapter(self) -> bool:
        """Whether it is a PEFT adapter instead of a model."""
        return CONFIG not in self.files


def check_finished(folder: Path) -> Finished:
    """Check that ``folder`` is a complete output; hidden files but the Hub's results are no part.

    Raises:
        RelexError: it is not; the message names the file.
    """
    if not local_folder(str(folder)):
        raise RelexError(f"{folder} is not a folder; run the recipe first, then push its output")
    files = _visible(folder)
    report = _output_json(folder / REPORT) if REPORT in files else None
    configs = [name for name in (CONFIG, ADAPTER_CONFIG) if name in files]
    if not configs:
        raise RelexError(
            f"{folder} has no {CONFIG}, so it is not a finished output; run the recipe again"
        )
    for name in configs:
        _output_json(folder / name)
    try:
        _check_output(folder, files)
    except NotWholeError as error:
        raise RelexError(f"{folder}: {error}; run the recipe again") from error
    return Finished(folder, files, report)


def _visible(folder: Path) -> tuple[str, ...]:
    """Return every file below ``folder`` that is not hidden, and the results of benchmarks."""
    names = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        results = relative.parts[0] == EVAL_RESULTS and path.suffix == ".yaml"
        hidden = any(part.startswith(".") for part in relative.parts[results:])
        if path.is_dir() or hidden:
            continue
        if TEMPORARY.fullmatch(path.name) or not path.is_file():
            raise RelexError(
                f"{path} is an unfinished file, so the output is not complete; run the recipe "
                "again, or delete the file if it is none of the model's"
            )
        names.append(relative.as_posix())
    return tuple(names)


def _output_json(path: Path) -> dict[str, Any]:
    try:
        return parse_object(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RelexError(f"{path} cannot be read ({error}); run the recipe again") from error


def _check_output(folder: Path, files: Sequence[str]) -> None:
    """Check the model's weights, and every file beside them, such as the Gram matrices."""
    weights = find_weights([name for name in files if "/" not in name], folder)
    if weights is None:
        raise NotWholeError("it has no weights")
    check_weights(folder, weights)
    for name in files:
        if not name.endswith(_WEIGHTS) or name in weights.files:
            continue
        if is_shard(PurePosixPath(name).name):
            raise NotWholeError(f"{name} is a shard that no index names, left over from before")
        tensors_of(folder / name)
