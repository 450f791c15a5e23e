"""What a finished output is: the check that stands before anything is published.

A folder passes when its configuration parses, its weights are complete, and every weight file is
as long as its own header says. That is decided from headers and file sizes; no weight is read.
"""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from relex_merge.errors import RelexError
from relex_merge.trajectory.statistics import FILE_NAME

REPORT = "relex_report.json"
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
    if not {*weights} - {FILE_NAME}:
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
