"""The training half of the story: base model and RLVR, a checkpoint after every step."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

from relex_merge.demo.base import train_base
from relex_merge.demo.grpo import Grpo
from relex_merge.demo.lora import load_policy
from relex_merge.demo.model import one_thread, save_model
from relex_merge.demo.session import Session
from relex_merge.demo.tasks import Task


def train(
    session: Session, tokenizer: Any, task: Task, prompts: list[str], last: int, *, quiet: bool
) -> None:
    """Train base model and checkpoints 1 … ``last``, or go on where that was interrupted.

    An interrupted training that is continued ends in the same bits as an uninterrupted one.

    Args:
        session: the demo.
        tokenizer: of the task.
        task: what is learnt.
        prompts: what is trained on.
        last: the last step.
        quiet: no progress bars.
    """
    with one_thread():
        if session.load_state()[0] is None:
            steps = session.settings.pretraining.steps
            with tqdm(total=steps, desc="base model", disable=quiet) as bar:
                model = train_base(task, tokenizer, prompts, session.settings, bar.update)
            save_model(model, tokenizer, session.base)
            session.save_state(0)
        if session.settings.trainer == "trl":
            from relex_merge.demo.trl_trainer import train_with_trl

            train_with_trl(session, tokenizer, task, prompts, last, quiet=quiet)
        else:
            _train_builtin(session, tokenizer, task, prompts, last, quiet=quiet)


def _train_builtin(
    session: Session, tokenizer: Any, task: Task, prompts: list[str], last: int, *, quiet: bool
) -> None:
    done, state = session.load_state()
    done = done or 0
    model = load_policy(session, session.checkpoint(done), trainable=True)
    trainer = Grpo(model, tokenizer, task, prompts, session.settings)
    if state is not None:
        trainer.restore(state)
    with tqdm(total=last, initial=done, desc="RLVR", disable=quiet) as bar:
        for step in range(done + 1, last + 1):
            reward = trainer.step()
            save_model(model, tokenizer, session.checkpoint(step))
            session.save_state(step, trainer.state())
            bar.set_postfix(reward=f"{reward:.2f}", refresh=False)
            bar.update()
