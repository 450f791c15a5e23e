"""The checkpoints that are to be published."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from relex_merge.checkpoints.complete import TEMPORARY
from relex_merge.checkpoints.find_in_place import find_in_place
from relex_merge.checkpoints.find_local import find_local
from relex_merge.checkpoints.observe import select
from relex_merge.checkpoints.series import Checkpoint, NothingFoundError, Series
from relex_merge.errors import RelexError


@dataclass(frozen=True)
class Wanted:
    """Which checkpoints of a folder: all that discovery finds, or some of them.

    Attributes:
        folder: where a trainer leaves them; text is the address of a place.
        pattern: as the option of the command.
        observe: as the option of the command.

    Raises:
        RelexError: ``observe`` can choose nothing, whatever the run will hold.
    """

    folder: Path | str
    pattern: str | None = None
    observe: str | None = None

    def __post_init__(self) -> None:
        if self.observe is not None:
            named = {0, *map(int, re.findall(r"\d+", self.observe))}
            select(sorted(named), self.observe, max(named))

    def series(self) -> Series:
        """Return what is there now, in the order of the steps. Raises RelexError for nothing."""
        if isinstance(self.folder, str):
            return self._chosen(find_in_place(self.folder, self.pattern))
        return self._chosen(find_local(self.folder, self.pattern))

    def so_far(self) -> Series | None:
        """Return the same for a run that is still writing, where nothing there yet is no fault.

        Folders under a temporary name, which trainers rename when they are written, are left out.
        """
        try:
            found = find_local(self.folder, self.pattern)
        except NothingFoundError:
            return None
        named = tuple(c for c in found.checkpoints if not self._is_temporary(c))
        try:
            return self._chosen(replace(found, checkpoints=named))
        except RelexError:  # none of the chosen steps is there yet
            return None

    def _chosen(self, found: Series) -> Series:
        if self.observe is None:
            return found
        chosen = set(select(found.steps, self.observe, found.last_step))
        return replace(found, checkpoints=tuple(c for c in found.checkpoints if c.step in chosen))

    def _is_temporary(self, checkpoint: Checkpoint) -> bool:
        # Discovery gives absolute paths and follows no link on the way.
        root = Path(self.folder).expanduser().absolute()
        below = PurePath(checkpoint.reference).relative_to(root)
        return any(TEMPORARY.fullmatch(part) for part in below.parts)
