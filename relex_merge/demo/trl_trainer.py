"""The RLVR half by TRL's ``GRPOTrainer``: what a real trainer writes is what we read."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from relex_merge.demo.lora import load_policy
from relex_merge.demo.model import quiet_transformers
from relex_merge.demo.session import Session
from relex_merge.errors import not_installed

if TYPE_CHECKING:
    from relex_merge.demo.tasks import Task


def require_trl() -> None:
    """Raise RelexError when TRL or datasets are missing."""
    try:
        import datasets  # noqa: F401
        import trl  # noqa: F401
    except ImportError as error:
        raise not_installed(f"--trainer trl needs {error.name}", "trl") from error


def train_with_trl(
    session: Session, tokenizer: Any, task: Task, prompts: list[str], last: int, *, quiet: bool
) -> None:
    """Train by TRL, which writes ``checkpoint-1`` … ``checkpoint-last``, one after each step.

    It goes on from the newest whole checkpoint, by the Trainer's own ``resume_from_checkpoint``.
    The advantages are those of :mod:`relex_merge.demo.grpo`; loss and random numbers are TRL's own.

    Args:
        session: the demo.
        tokenizer: of the task.
        task: what answers are verified by.
        prompts: what is trained on.
        last: the last step.
        quiet: no progress bar.
    """
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import GRPOTrainer

    done = session.trained() or 0
    if done >= last:
        return

    def reward(prompts: list[str], completions: list[str], **_: object) -> list[float]:
        return [float(task.verify(p, a)) for p, a in zip(prompts, completions, strict=True)]

    with (
        quiet_transformers(),
        _own_random_numbers(),
        tqdm(total=last, initial=done, desc="RLVR by TRL", disable=quiet) as bar,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, about TRL's arguments
        trainer = GRPOTrainer(
            model=load_policy(session, session.base, trainable=True),
            reward_funcs=reward,
            args=_arguments(session, task.answer_length + 1, last),
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=tokenizer,
            callbacks=[_after_each_step(bar.update)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(session.checkpoint(done)) if done else None)


def _after_each_step(tick: Callable[[], object]) -> Any:
    """Make a callback for the Trainer that calls ``tick``."""
    from transformers import TrainerCallback

    class Tick(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
        def on_step_end(self, *_: object, **__: object) -> None:
            tick()

    return Tick()


def _arguments(session: Session, length: int, last: int) -> Any:
    from trl import GRPOConfig

    rlvr = session.settings.rlvr
    return GRPOConfig(
        output_dir=str(session.series),
        max_steps=last,
        learning_rate=rlvr.lr,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=rlvr.warm_up,
        per_device_train_batch_size=rlvr.rollouts,
        num_generations=rlvr.group,
        max_completion_length=length,
        save_strategy="steps",
        save_steps=1,
        logging_strategy="no",
        report_to="none",
        seed=session.settings.stream("rollouts") % 2**32,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
    )


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Put the global generators, all of which the Trainer seeds, back as they were."""
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(python)
    np.random.set_state(numpy)
