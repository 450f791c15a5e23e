"""What a training run is checked for before its first step, and what is taken from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from relex_merge.checkpoints import locate
from relex_merge.engine.memory_limits import free_memory
from relex_merge.errors import RelexError
from relex_merge.pipeline import prepare

if TYPE_CHECKING:
    from transformers import TrainingArguments

_SHARE = 4  # a quarter of the free memory


def check_saves(args: TrainingArguments) -> None:
    """Raise RelexError when the trainer saves nothing that could be followed."""
    if str(getattr(args.save_strategy, "value", args.save_strategy)) == "no":
        raise RelexError(
            "TrajectoryCallback follows saved checkpoints, and save_strategy is 'no'; set it to "
            "'steps', with save_steps"
        )


def base_of(model: Any, given: str | None) -> str:
    """Return the reference of the base, opened once to see that it is there.

    Args:
        model: of the trainer; says what it was loaded from.
        given: names the base instead.

    Raises:
        RelexError: there is no such model, or none is named.
    """
    reference = given or getattr(getattr(model, "config", None), "name_or_path", "")
    if not reference:
        raise RelexError(
            "the model does not say what it was loaded from; name the model that this run starts "
            "from with TrajectoryCallback(base_model=...)"
        )
    if Path(reference).expanduser().is_dir():
        reference = str(Path(reference).expanduser().resolve())
    (snapshot,) = locate.locate([reference])
    prepare.open_source(snapshot, prepare.Ranges())
    return str(reference)


def budget(given: int | None, *, exact: bool) -> int:
    """Return the bytes for checkpoints in memory.

    Args:
        given: by the user; None leaves it to this function.
        exact: whether whole checkpoints are held at all.

    Raises:
        RelexError: it is less than nothing, or there is nothing to hold.
    """
    if given is None:
        return free_memory() // _SHARE
    if given < 0:
        raise RelexError(f"memory is {given}; give a number of bytes, or 0 to hold nothing")
    if not exact:
        raise RelexError("memory is for exact=True; a sample takes 4 MB a checkpoint: leave it out")
    return given
