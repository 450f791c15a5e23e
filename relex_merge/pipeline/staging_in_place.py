"""OUT in an object store: made on this disk, then uploaded whole.

The staging folder lies in the cache of places instead of beside OUT. All else is as for a folder: a
run that was killed, or could not upload, goes on where it was when it is started again, and nothing
is replaced without ``--force``.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relex_merge.pipeline.options import Notify, keep_silent
from relex_merge.pipeline.progress import progress_bar
from relex_merge.pipeline.staging import Staging, staging
from relex_merge.places.download import cache_root
from relex_merge.places.filesystem import open_place
from relex_merge.places.upload import Destination

if TYPE_CHECKING:
    from relex_merge.pipeline.lock import Lock


def local_out(address: str, cache_dir: str | None = None) -> Path:
    """Return the path on this disk, absolute, that stands for OUT while it is made."""
    address = open_place(address).address
    folder = hashlib.sha256(address.encode()).hexdigest()[:16]
    root = cache_root(cache_dir).expanduser().resolve()
    return root / "written" / folder / address.rpartition("/")[2]


class PlaceStaging(Staging):
    """A staging folder whose content goes to a place. Make one with :func:`staging_in_place`."""

    def __init__(
        self,
        destination: Destination,
        quiet: bool,
        out: Path,
        lock: Lock,
        command: Any,
        notify: Notify,
    ) -> None:
        super().__init__(out, lock, command, notify)
        self._destination = destination
        self._quiet = quiet
        self._continued = False

    def begin(self, key: Any) -> None:
        """Begin as for a folder; only what a key tells apart is not uploaded twice."""
        super().begin(key)
        self._continued = key is not None

    def publish(self, force: bool) -> None:
        """Upload the finished folder, and only then delete what was there."""
        self._lock.check()
        self._destination.check_free(force)
        shards = {
            Path(name).relative_to(self.content.name).as_posix()
            for files in self._shards.values()
            for name in files
            if Path(name).is_relative_to(self.content.name)
        }
        total = sum(path.stat().st_size for path in self.content.rglob("*") if path.is_file())
        token = self._key if self._continued else uuid.uuid4().hex
        with progress_bar("uploading", quiet=self._quiet, in_bytes=True) as start:
            self._destination.fill(self.content, token, shards, start(total))
        self.discard()


@contextmanager
def staging_in_place(
    address: str,
    out: Path,
    force: bool,
    *,
    command: Any = None,
    notify: Notify = keep_silent,
    quiet: bool = False,
) -> Iterator[Staging]:
    """Give the staging folder of an OUT in a place to one run at a time on this machine.

    Args:
        address: of OUT.
        out: what :func:`local_out` says.
        force: whether a folder that is not empty may be replaced.
        command: says what was asked for (JSON).
        notify: called with remarks for the user.
        quiet: no progress bar.

    Raises:
        RelexError: OUT is in the way, cannot be written, or is being written by another run.
    """
    destination = Destination(open_place(address))
    destination.check_free(force)
    make, shown = partial(PlaceStaging, destination, quiet), destination.place.address
    with staging(out, True, command=command, notify=notify, make=make, shown=shown) as stage:
        destination.claim()
        try:
            yield stage
        except BaseException:
            destination.release()
            raise
