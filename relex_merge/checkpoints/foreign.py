"""Checkpoints in layouts of trainers that this package does not read: what they are, and a remedy.

DeepSpeed's ZeRO writes flat slices of all parameters for each rank, Megatron slices by its own
parallelism; their own tools turn them into models.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from pathlib import Path

CKPT_CONTENTS = "ckpt_contents.json"  # verl's manifest of a Megatron checkpoint, written last
_ZERO_STATE = re.compile(r"(bf16_)?zero_pp_rank_\d+_mp_rank_\d+_(optim|model)_states\.pt")
_ZERO_SCRIPT = "zero_to_fp32.py"
_UNIVERSAL = "zero"  # the folder of DeepSpeed's universal checkpoints, with one for each parameter


def foreign_checkpoint(folder: Path, names: Collection[str], below: Collection[str]) -> str | None:
    """Return what to say of a folder with another trainer's state, None for any other folder.

    Args:
        folder: the folder.
        names: of the files in it.
        below: of the folders in it.
    """
    if any(map(_ZERO_STATE.fullmatch, names)):
        return _of_zero(folder, names)
    if _UNIVERSAL in below and any(name.endswith("model_states.pt") for name in names):
        return (
            "it is a universal checkpoint of DeepSpeed, whose float32 weights lie in "
            "zero/*/fp32.pt by DeepSpeed's names; load it with the trainer, and save it with "
            "save_pretrained"
        )
    if "dist_ckpt" in below and CKPT_CONTENTS in names and not _has_model(folder):
        return (
            "it holds the shards of Megatron, whose slices are not those of a Hugging Face model; "
            "verl converts them: python -m verl.model_merger merge --backend megatron --local_dir "
            f"{shlex.quote(str(folder))} --target_dir {shlex.quote(str(folder / 'huggingface'))}"
        )
    return None


def is_unfinished_megatron(folder: Path) -> bool:
    """Whether a folder is verl's ``actor/model/huggingface`` while the rest is still being written.

    verl writes ``ckpt_contents.json`` into ``actor`` when everything else is on the disk.
    """
    actor = folder.parent.parent
    return (
        folder.name == "huggingface"
        and folder.parent.name == "model"
        and actor.name == "actor"
        and not (actor / CKPT_CONTENTS).is_file()
    )


def _of_zero(folder: Path, names: Collection[str]) -> str:
    """Say of ZeRO's states how they become a model."""
    states = [name for name in names if _ZERO_STATE.fullmatch(name)]
    if not any("optim" in name for name in states):
        return (
            "it holds ZeRO-3 slices of DeepSpeed without the optimizer's states, which alone have "
            "the float32 weights; save the model with stage3_gather_16bit_weights_on_model_save"
        )
    script = folder.parent / _ZERO_SCRIPT
    if not script.is_file():
        script = Path(_ZERO_SCRIPT)
    run, tag = shlex.quote(str(folder.parent)), shlex.quote(folder.name)
    return (
        f"it holds ZeRO slices of DeepSpeed, which its own script turns into float32 weights: "
        f"python {shlex.quote(str(script))} {run} {run}/{tag}_hf --tag {tag} --safe_serialization; "
        "then copy config.json and the tokenizer there"
    )


def _has_model(folder: Path) -> bool:
    return (folder / "model" / "huggingface" / "config.json").is_file()
