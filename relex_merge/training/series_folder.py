"""The series folder: weights, configuration and tokenizer of every saved checkpoint, as links.

A link costs no room as long as the checkpoint is there, and keeps its weights, not its optimizer
state, when ``save_total_limit`` takes the checkpoint away.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from relex_merge.checkpoints.complete import names_of, weights_of
from relex_merge.checkpoints.find_local import check_nameable
from relex_merge.checkpoints.series import Checkpoint
from relex_merge.errors import RelexError

_STEP = "step_"


class SeriesFolder:
    """A folder ``step_N`` for each checkpoint.

    Args:
        root: holds them all.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._link: Callable[[Path, Path], None] = os.link

    def prepare(self, output: Path, *, deletes: bool) -> None:
        """Make the folder and find out how to link into it.

        Args:
            output: where the trainer saves checkpoints.
            deletes: whether the trainer deletes some, which a symbolic link would not survive.

        Raises:
            RelexError: no link can be made, or no recipe could name the folder.
        """
        check_nameable([Checkpoint(0, str(self.root), "plain")])
        try:
            output.mkdir(parents=True, exist_ok=True)
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=output) as probe:
                target = self.root / Path(probe.name).name
                try:
                    os.link(probe.name, target)
                    target.unlink()
                except OSError:
                    if deletes:
                        raise
                    self._link = os.symlink
        except OSError as error:
            raise RelexError(
                f"{self.root} cannot take hard links to files in {output} ({error.strerror}), and "
                "save_total_limit deletes checkpoints; name a folder on the same file system with "
                "series=, or set save_total_limit to None"
            ) from error

    def add(self, checkpoint: Path, step: int) -> Path:
        """Link what belongs to the model, and return the folder of the step.

        Args:
            checkpoint: as the trainer saved it.
            step: of the checkpoint.

        Raises:
            RelexError: the checkpoint is not whole.
            OSError: a link cannot be made.
        """
        target = self.at(step)
        partial = self.root / f".{target.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        for name in names_of(checkpoint, weights_of(checkpoint)):
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            self._link((checkpoint / name).resolve(), partial / name)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        return target

    def at(self, step: int) -> Path:
        """Return the folder of a step's checkpoint."""
        return self.root / f"{_STEP}{step}"

    def steps(self) -> list[int]:
        """Return the steps that are there, ascending."""
        numbers = (path.name.removeprefix(_STEP) for path in self.root.glob(f"{_STEP}*"))
        return sorted(int(number) for number in numbers if number.isdecimal())

    def drop_after(self, step: int) -> None:
        """Remove the checkpoints beyond ``step``, from which the run was started again."""
        for other in self.steps():
            if other > step:
                shutil.rmtree(self.at(other))
