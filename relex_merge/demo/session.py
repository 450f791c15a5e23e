"""The demo's folder: what lies where, and how an interrupted training goes on.

While training is unfinished OUT holds a private state file. It names the settings that it belongs
to and what the next step needs besides the weights, which lie in the newest checkpoint. Every
write is finished under another name first, so whatever moment the power fails, state and weights
belong together.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from relex_merge.checkpoints.steps import step_of
from relex_merge.demo.grpo import TrainerState
from relex_merge.demo.settings import Settings
from relex_merge.errors import RelexError, disk_errors

STATE = ".demo-state.pt"
OURS = ("base", "series", "bf16", "relex", "choice", "two-point", "auto", "trust-report", "task")
FILES = (
    "recipe.yml",
    "recipe-auto.yml",
    "recipe.evaluation.json",
    "prompts.jsonl",
    "accuracy.png",
    "results.json",
    STATE,
)


@dataclass(frozen=True)
class Session:
    """One demo in ``out``. Make it with :func:`open_session`."""

    out: Path
    settings: Settings

    @property
    def base(self) -> Path:
        """Folder of the base model."""
        return self.out / "base"

    @property
    def series(self) -> Path:
        """Folder of the checkpoints."""
        return self.out / "series"

    @property
    def prefix(self) -> str:
        """What stands before the step in the name of a checkpoint; TRL chooses its own."""
        return "checkpoint-" if self.settings.trainer == "trl" else "step_"

    def checkpoint(self, step: int) -> Path:
        """Return the folder of the model after ``step`` updates; the base's after none."""
        return self.base if step == 0 else self.series / f"{self.prefix}{step}"

    def stored(self, step: int) -> Path:
        """Return the folder in which the model after ``step`` updates is observed.

        That is the checkpoint, or with ``bf16`` the copy that the story makes of it.
        """
        if not self.settings.bf16:
            return self.checkpoint(step)
        return self.out / "bf16" / (f"{self.prefix}{step}" if step else "base")

    def save_state(self, step: int | None, trainer: TrainerState | None = None) -> None:
        """Note how far the training has come.

        Args:
            step: the newest checkpoint; None: not even the base is there.
            trainer: what the next step needs besides the weights.
        """
        import torch

        partial = self.out / f"{STATE}.partial"
        content = {
            "settings": self.settings.fingerprint(),
            "step": step,
            "optimizer": trainer and trainer.optimizer,
            "generator": None if trainer is None else trainer.generator,
        }
        with disk_errors(partial):
            torch.save(content, partial)
            partial.replace(self.out / STATE)

    def load_state(self) -> tuple[int | None, TrainerState | None]:
        """Return the step that training has come to, and how to go on from there."""
        import torch

        content = torch.load(self.out / STATE, weights_only=True)
        if content["optimizer"] is None:
            return content["step"], None
        return content["step"], TrainerState(content["optimizer"], content["generator"])

    def trained(self) -> int | None:
        """Count the steps of RLVR that are whole on the disk; None: not even the base."""
        done = self.load_state()[0]
        if done is None or self.settings.trainer == "builtin":
            return done
        # TRL keeps its own state beside every checkpoint, and writes it last.
        whole = self.series.glob(f"{self.prefix}*/trainer_state.json")
        return int(max((step_of(str(file.parent)) or 0 for file in whole), default=0))

    def finish(self) -> None:
        """Declare the demo complete: from now on OUT is refused as any folder that is not empty."""
        (self.out / STATE).unlink()


def open_session(out: Path, settings: Settings, *, force: bool) -> Session:
    """Make the demo's folder ready.

    Args:
        out: new, empty, or that of an unfinished demo of these settings, which goes on.
        settings: of the demo.
        force: remove an earlier demo from it.

    Raises:
        RelexError: OUT is not empty and holds no unfinished demo of these settings, or cannot be
            written to.
    """
    session = Session(out, settings)
    if out.is_dir() and any(out.iterdir()):
        if force:
            _clear(out)
        elif _belongs(session):
            return session
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    session.save_state(None)
    return session


def _belongs(session: Session) -> bool:
    """Whether OUT holds an unfinished demo of the same settings. RelexError if not."""
    import torch

    out, state = session.out, session.out / STATE
    if not state.is_file():
        raise RelexError(f"{out} is not empty; choose another folder, or replace it with --force")
    found = torch.load(state, weights_only=True)["settings"]
    if found != session.settings.fingerprint():
        raise RelexError(
            f"{out} holds an unfinished demo with other settings; choose another folder, or "
            "replace it with --force"
        )
    return True


def _clear(out: Path) -> None:
    """Remove what a demo writes, and nothing else that may lie there."""
    with disk_errors(out):
        for name in OURS:
            if (out / name).is_dir():
                shutil.rmtree(out / name)
        for name in FILES:
            (out / name).unlink(missing_ok=True)
