"""A folder written by the real transformers Trainer: a tiny model, six steps, a save every two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.support.models import make_config, make_state, write_model

SAVED = (2, 4, 6)
PLANNED = 10  # max_steps; the run is stopped before


def train(root: Path, **options: Any) -> tuple[Path, Path]:
    """(base, output folder of the Trainer); the run is stopped at the last of ``SAVED``.

    options: further TrainingArguments.
    """
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    class Callback(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            if arguments.push_to_hub:  # pushes go on behind training, and may be skipped
                trainer.push_in_progress.wait_until_done()
            return control

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            control.should_training_stop = state.global_step >= SAVED[-1]
            return control

    config = make_config()
    base = write_model(root / "base", config, make_state(config), tokenizer=True)
    out = root / "out"
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=PLANNED,
        save_steps=2,
        per_device_train_batch_size=2,
        learning_rate=1e-3,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_strategy="no",
        **options,
    )
    ids = torch.arange(8)
    rows = [{"input_ids": ids, "labels": ids} for _ in range(24)]
    trainer = Trainer(
        AutoModelForCausalLM.from_pretrained(base),
        arguments,
        train_dataset=rows,
        callbacks=[Callback()],
    )
    trainer.train()
    if not options:
        trainer.save_model()
    return base, out
