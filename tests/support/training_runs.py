"""A real ``Trainer`` on a tiny model, a few steps on a CPU in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tests.support.models import float64, make_config, make_state, read_weights, write_model


def write_base(folder: Path) -> Path:
    """A base model to train from."""
    config = make_config("qwen2")
    return write_model(folder, config, make_state(config), tokenizer=True)


def make_trainer(base: Path, output: Path, model: Any = None, **arguments: Any) -> Any:
    """A Trainer that saves every step; ``arguments`` are those of TrainingArguments."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

    settings: dict[str, Any] = {
        "max_steps": 6,
        "save_steps": 1,
        "logging_steps": 1,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 4,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": 0,
        **arguments,
    }
    noise = torch.Generator().manual_seed(0)
    rows = [torch.randint(0, 64, (8,), generator=noise) for _ in range(64)]
    return Trainer(
        model=model or AutoModelForCausalLM.from_pretrained(base),
        args=TrainingArguments(output_dir=str(output), **settings),
        train_dataset=[{"input_ids": row, "labels": row} for row in rows],
        processing_class=AutoTokenizer.from_pretrained(base),
    )


def gram_of(base: Path, folders: list[Path]) -> dict[str, npt.NDArray[np.float64]]:
    """G of every tensor, straight from the files in float64."""
    start = {name: float64(weight) for name, weight in read_weights(base).items()}
    states = [read_weights(folder) for folder in folders]
    grams = {}
    for name, weight in start.items():
        M = np.stack([float64(state[name]) - weight for state in states])
        grams[name] = M @ M.T
    return grams
