"""Files of weights in a place, read range by range in the state that they were listed in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from relex_merge.checkpoints.archive import Reader
from relex_merge.hub.ranges import REQUESTS
from relex_merge.places.pin import PlacePin
from relex_merge.places.ranges import FileReader, Transfers
from relex_merge.places.together import together
from relex_merge.weights.files import SourceChangedError
from relex_merge.weights.spans import coalesce


def check_place(pin: PlacePin, names: Sequence[str]) -> None:
    """Raise SourceChangedError when a file is not as it was when the run began."""
    changed = pin.changed(names)
    if changed:
        raise SourceChangedError(
            f"{changed} during the run; nothing was written, run again when nothing else writes "
            "to it"
        )


class PlaceFiles:
    """Files of one folder of a checkpoint, as :class:`~relex_merge.weights.files.DiskFiles`.

    Args:
        pin: the checkpoint.
        folder: path in it of the folder, "." for its own.
        transfers: shared by all sources of a run.
    """

    remote = True
    parallel_reads = REQUESTS

    def __init__(self, pin: PlacePin, folder: str, transfers: Transfers) -> None:
        self._pin = pin
        self._before = "" if folder == "." else f"{folder}/"
        self._transfers = transfers
        self._opened: dict[str, None] = {}

    def name(self, file: str) -> str:
        """Return the address of a file."""
        return self._pin.file(self._before + file).name

    @contextmanager
    def opened(self, file: str) -> Iterator[tuple[Reader, int]]:
        """Yield what reads ranges of a file, and its bytes."""
        far = self._pin.file(self._before + file)
        self._opened[far.file] = None
        yield FileReader(far, self._transfers), far.size

    def fill(self, wanted: Mapping[str, Sequence[tuple[int, memoryview]]]) -> None:
        """Fill buffers, with as few requests as possible, and of all files at the same time."""

        def read(file: str) -> None:
            self._transfers.read(self._pin.file(self._before + file), coalesce(wanted[file]))

        if len(wanted) == 1:
            read(*wanted)
        elif wanted:
            together(read, list(wanted), min(REQUESTS, len(wanted)))

    def fingerprint(self) -> list[Any]:
        """Return the address and the state of every file."""
        return [*self._pin.mark]

    def check_unchanged(self) -> None:
        """Raise SourceChangedError when a file that was opened is in another state now."""
        check_place(self._pin, list(self._opened))

    def stop(self) -> None:
        """Let all reads of the run end soon."""
        self._transfers.stop()
