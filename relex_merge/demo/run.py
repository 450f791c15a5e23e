"""``run_demo``: the one way in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from relex_merge.demo.model import without_deprecations
from relex_merge.demo.session import Session, open_session
from relex_merge.demo.settings import make_settings
from relex_merge.demo.story import Story
from relex_merge.demo.table import DemoResult
from relex_merge.demo.tasks import load_task
from relex_merge.demo.trl_trainer import require_trl
from relex_merge.errors import RelexError


def run_demo(  # noqa: PLR0913  # a public function: each option is a keyword of its own
    out: str | Path,
    *,
    task: str = "addition",
    seed: int = 0,
    steps: int = 200,
    observe: int = 30,
    lr: float | None = None,
    quick: bool = False,
    bad: bool = False,
    force: bool = False,
    trainer: str = "builtin",
    lora: bool = False,
    warm_up: bool = False,
    bf16: bool = False,
    quiet: bool = False,
    echo: Callable[[str], object] = print,
) -> DemoResult:
    """Train a tiny model by RLVR, watch its first steps, write the end of the run, and compare.

    Args:
        out: folder for everything; new, empty, or that of an interrupted demo of these settings,
            which then goes on where it stopped and ends as if it had never been interrupted.
        task: a module of :mod:`relex_merge.demo.tasks`.
        seed: decides everything that is random.
        steps: length of the full run.
        observe: how many of them are trained and observed.
        lr: learning rate of the RLVR run; default that of :mod:`relex_merge.demo.settings`.
        quick: do not train on to ``steps``, to compare with the real end.
        bad: a setting in which extrapolation fails, and the trust report says so.
        force: replace an earlier demo in ``out``.
        trainer: "builtin", or "trl" for TRL's GRPOTrainer.
        lora: train a PEFT adapter instead of the whole model, and end with an adapter.
        warm_up: the learning rate rises over the first steps, and auto beats the line.
        bf16: the checkpoints are observed as bfloat16 files, in which weights cannot tell.
        quiet: no progress bars.
        echo: called with every paragraph of text.

    Raises:
        RelexError: whatever is wrong, with the remedy; after Ctrl-C, what was kept.
    """
    settings = make_settings(
        task=task,
        seed=seed,
        steps=steps,
        observe=observe,
        lr=lr,
        bad=bad,
        trainer=trainer,
        lora=lora,
        warm_up=warm_up,
        bf16=bf16,
    )
    load_task(task)
    if trainer == "trl":
        require_trl()
    session = open_session(Path(out).resolve(), settings, force=force)
    try:
        with without_deprecations():
            result = Story(session, quick=quick, quiet=quiet, echo=echo).tell()
    except KeyboardInterrupt:
        raise RelexError(_kept(session)) from None
    session.finish()
    return result


def _kept(session: Session) -> str:
    """What an interrupted demo left, and how to go on."""
    done = session.trained()
    if done is None:
        return "interrupted before the base model was finished; the same command starts again"
    return (
        f"interrupted; kept in {session.out}: the base model and {done} steps of RLVR. Run the "
        "same command again to go on from there"
    )
