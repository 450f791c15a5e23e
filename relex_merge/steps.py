"""Which step of the run a reference names."""

from __future__ import annotations

import re
from pathlib import Path

_SHA = re.compile(r"[0-9a-f]{7,40}")
# A number that is no part of a decimal (1.5) and no model size (8B, 270m).
_NUMBER = re.compile(r"(?<![\d.])(\d+)(?!\d|\.\d|[bBmMkK](?![a-zA-Z]))")
_NAMED_STEP = re.compile(r"(?:step|checkpoint|ckpt|iter)[-_]?(\d+)", re.IGNORECASE)
# Folders in which trainers keep the model of the step that their parent names.
_INNER = {"actor", "huggingface", "hf", "hf_model", "model", "policy", "merged"}


def step_of(reference: str) -> int | None:
    """The step number that ``path[@revision]`` or ``base+adapter[@revision]`` names, else None.

    The last integer in the revision (``step_50``, ``main-step-000000050``, ``v1.00-step-50``), else
    in the folder's name (``checkpoint-50``, ``global_step_50/actor/huggingface``). A commit sha
    names no step, nor does a model size (``Qwen2.5-1.5B``); of a Hub repo without a revision only
    an outspoken ``step``, ``checkpoint``, ``ckpt`` or ``iter`` counts.
    """
    model = reference.rpartition("+")[2]
    path, _, revision = model.partition("@")
    if revision:
        if _SHA.fullmatch(revision) and not revision.isdigit():
            return None
        numbers = re.findall(r"\d+", revision)
        return int(numbers[-1]) if numbers else None
    parts = Path(path).parts
    while len(parts) > 1 and parts[-1].lower() in _INNER:
        parts = parts[:-1]
    name = parts[-1] if parts else ""
    on_hub = path.count("/") <= 1 and not Path(path).is_dir()
    numbers = (_NAMED_STEP if on_hub else _NUMBER).findall(name)
    return int(numbers[-1]) if numbers else None
