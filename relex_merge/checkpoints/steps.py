"""Which step of the run a reference names."""

from __future__ import annotations

import re
from pathlib import Path

from relex_merge.hub.references import HubReference, hub_reference, may_be_on_hub

_INTEGER = re.compile(r"\d+")
_SHA = re.compile(r"[0-9a-f]{7,40}")
# A number that is no part of a decimal (1.5) and no model size (8B, 270m).
_NUMBER = re.compile(r"(?<![\d.])(\d+)(?!\d|\.\d|[bBmMkK](?![a-zA-Z]))")
_NAMED_STEP = re.compile(r"(?:step|checkpoint|ckpt|iter)[-_]?(\d+)", re.IGNORECASE)
# Folders in which trainers keep the model of the step that their parent names.
_INNER = {"actor", "huggingface", "hf", "hf_model", "model", "policy", "merged"}


def step_of(reference: str) -> int | None:
    """The step number that ``path[@revision]`` or ``base+adapter[@revision]`` names, else None.

    The last integer in the revision (``step_50``, ``main-step-000000050``, ``v1.00-step-50``), else
    in the folder's name (``checkpoint-50``, ``global_step_50/actor/huggingface``). A folder in a
    Hub repo whose name is a step comes before the revision (``org/run/checkpoint-50@v2``). A commit
    sha names no step, nor does a model size (``Qwen2.5-1.5B``); of a Hub repo without a revision
    only an outspoken ``step``, ``checkpoint``, ``ckpt`` or ``iter`` counts.
    """
    model = reference.rpartition("+")[2]
    path, _, revision = model.partition("@")
    if revision or (may_be_on_hub(path) and not Path(path).is_dir()):
        return _step_on_hub(hub_reference(model))
    return _last(_NUMBER, _name(path))


def _step_on_hub(place: HubReference) -> int | None:
    """Of a folder's name only what is outspoken, or nothing but a number, beats the revision."""
    folder = _name(place.folder)
    if place.folder and (folder.isdecimal() or _NAMED_STEP.search(folder)):
        return _last(_NUMBER, folder)
    if place.revision and (place.revision.isdigit() or not _SHA.fullmatch(place.revision)):
        step = _last(_INTEGER, place.revision)
        if step is not None or not place.folder:
            return step
    return _last(_NUMBER, folder) if place.folder else _last(_NAMED_STEP, _name(place.repo))


def _name(path: str) -> str:
    """The part of a path that may name a step."""
    parts = Path(path).parts
    while len(parts) > 1 and parts[-1].lower() in _INNER:
        parts = parts[:-1]
    return parts[-1] if parts else ""


def _last(number: re.Pattern[str], name: str) -> int | None:
    found = number.findall(name)
    return int(found[-1]) if found else None
