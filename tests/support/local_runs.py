"""Checkpoints on this disk as trainers leave them, with everything that must not be published."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.support.models import Series, make_series, write_tokenizer

SECRET = "/home/jane/models/base"
# What transformers, DeepSpeed and PEFT leave beside the model.
LEFTOVERS = (
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "training_args.bin",
    "optimizer.bin",
    "zero_to_fp32.py",
    "latest",
    "README.md",
    "global_step5/mp_rank_00_model_states.pt",
    ".cache/x",
)


def make_run(
    root: Path, steps: Sequence[int] = (5, 10, 15), *, shards: int = 1, max_steps: int = 100
) -> tuple[Path, Series]:
    """A folder ``run`` with ``checkpoint-N`` as transformers' Trainer writes them, and the series.

    The base lies beside it.
    """
    made = make_series(root, steps=steps, shards=shards)
    run = root / "run"
    folders = []
    for step, folder in zip(steps, made.checkpoints, strict=True):
        checkpoint = run / f"checkpoint-{step}"
        shutil.move(folder, checkpoint)
        as_trainer_leaves_it(checkpoint, step, max_steps)
        folders.append(checkpoint)
    return run, Series(made.base, tuple(folders), made.steps, made.base_state, made.states)


def as_trainer_leaves_it(checkpoint: Path, step: int, max_steps: int) -> None:
    """Tokenizer, a configuration that names a local folder, and what is none of the Hub's."""
    write_tokenizer(checkpoint, "{{ messages }}")
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "_name_or_path": SECRET}))
    (checkpoint / "generation_config.json").write_text('{"do_sample": false}')
    for name in LEFTOVERS:
        (checkpoint / name).parent.mkdir(exist_ok=True)
        torch.save({"path": SECRET}, checkpoint / name)
    state = {"global_step": step, "max_steps": max_steps}
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
