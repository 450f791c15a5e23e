"""A finished model into a place, so that no reader ever takes half of it for a whole one.

A store has no rename. So a marker goes first and goes away last; shards come before what names
them, the index of shards (or the single file of weights) after everything else but the card. What
an earlier upload has left behind its marker is no obstacle: the next one goes on over it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relex_merge.errors import RelexError
from relex_merge.places.address import join, protocol_of
from relex_merge.places.filesystem import FIRST_ANSWER, Place, within
from relex_merge.places.pin import FileState, state_of
from relex_merge.places.together import together

MARKER = ".relex-partial.json"
_AT_A_TIME = 4  # files; the libraries send parts of a large one at the same time by themselves
# What makes a folder look like a whole model comes last, in this order.
_LAST = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")
_CARD = "README.md"
_UNMARKED: Mapping[str, Any] = {"token": None, "files": []}
# Object stores, whose folders are but parts of names.
_STORES = {"s3", "s3a", "gs", "gcs", "hf", "abfs", "abfss", "az", "adl", "oci", "oss", "memory"}


@dataclass(frozen=True)
class Destination:
    """A folder of a place that is written to."""

    place: Place

    def check_free(self, force: bool) -> None:
        """Raise RelexError when something is there that must not be replaced.

        Args:
            force: whether it may be replaced.
        """
        there = self._there()
        if "" in there:
            raise RelexError(f"{self.place.address} is a file; give a folder that does not exist")
        others = set(there) - {MARKER} - set(self._marked()["files"] if MARKER in there else ())
        if others and not force:
            raise RelexError(
                f"{self.place.address} is not empty (it holds {min(others)}); choose another "
                "folder, or replace it with --force"
            )

    def claim(self) -> None:
        """Leave the marker, which asks at once whether one may write here.

        Raises:
            RelexError: one may not, or there is no such bucket.
        """
        if MARKER not in self._there():
            self._mark("", ())

    def release(self) -> None:
        """Take the marker away where nothing but it was written, and the place still answers."""

        def take_away() -> None:
            self.place.files.invalidate_cache()
            names = [str(name).strip("/") for name in self.place.files.find(self.place.path)]
            if names == [self.place.below(MARKER).strip("/")]:
                self.place.files.rm_file(self.place.below(MARKER))

        with suppress(Exception):
            within(FIRST_ANSWER, take_away)

    def fill(
        self,
        folder: Path,
        token: str,
        kept: Collection[str],
        advance: Callable[[int], object] = lambda count: None,
    ) -> None:
        """Upload a folder, and delete what else is there.

        Args:
            folder: on this disk.
            token: the same for an earlier upload whose files are the same.
            kept: names of the files that such an upload needs not send twice.
            advance: called with the bytes that have arrived.

        Raises:
            RelexError: the place refuses, or does not answer.
        """
        files = {
            path.relative_to(folder).as_posix(): path.stat().st_size
            for path in folder.rglob("*")
            if path.is_file()
        }
        there = self._there()
        before = self._marked() if MARKER in there else _UNMARKED
        arrived = {
            name
            for name in kept
            if before["token"] == token and name in there and there[name].size == files.get(name)
        }
        old = set(there) - arrived - {MARKER}
        self._mark(token, {*files, *before["files"]})
        # An old output stops to look whole before the first of its files is replaced.
        self._remove(sorted(name for name in old if _rank(name)))
        for name in arrived:
            advance(files[name])
        for rank in sorted({_rank(name) for name in files}):
            some = sorted(n for n in files if _rank(n) == rank and n not in arrived)
            self._send(folder, some, files, advance)
        self._remove(sorted(name for name in old - set(files) if not _rank(name)))
        self._remove([MARKER])

    def _send(
        self,
        folder: Path,
        names: Collection[str],
        sizes: Mapping[str, int],
        advance: Callable[[int], object],
    ) -> None:
        files = self.place.files

        def send(name: str) -> None:
            remote = self.place.below(name)

            def put() -> None:
                self._make(remote.rpartition("/")[0])
                files.put_file(str(folder / name), remote)

            self._ask(put)
            advance(sizes[name])

        together(send, sorted(names), _AT_A_TIME)

    def _there(self) -> dict[str, FileState]:
        """Return every file below the folder, by its path in it; "" is the folder as a file."""

        def listing() -> dict[str, dict[str, Any]]:
            self.place.files.invalidate_cache()
            found: dict[str, dict[str, Any]] = self.place.files.find(self.place.path, detail=True)
            return found

        try:
            listed = self.place.ask(listing)
        except FileNotFoundError:
            return {}
        root = self.place.path.strip("/")
        return {
            path.strip("/").removeprefix(root).strip("/"): state_of(info)
            for path, info in listed.items()
            if info["type"] == "file" and not path.endswith("/")
        }

    def _marked(self) -> dict[str, Any]:
        """Return what the marker says; nothing where it is none of ours."""
        place = self.place
        try:
            found = json.loads(place.ask(lambda: place.files.cat_file(place.below(MARKER))))
        except (FileNotFoundError, ValueError):
            found = {}
        well_formed = isinstance(found, dict) and isinstance(found.get("files"), list)
        return found if well_formed else dict(_UNMARKED)

    def _mark(self, token: str, files: Collection[str]) -> None:
        text = json.dumps({"token": token, "files": sorted(files)}).encode()

        def put() -> None:
            self._make(self.place.path)
            self.place.files.pipe_file(self.place.below(MARKER), text)

        self._ask(put)

    def _make(self, folder: str) -> None:
        """Make a folder where a place has any; a store would make a bucket that was misspelt."""
        if protocol_of(self.place.address) not in _STORES:
            self.place.files.makedirs(folder, exist_ok=True)

    def _remove(self, names: Collection[str]) -> None:
        paths = [self.place.below(name) for name in names]
        for path in paths:
            try:
                self._ask(lambda path=path: self.place.files.rm_file(path))  # type: ignore[misc]
            except RelexError as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise

    def _ask(self, call: Callable[[], object]) -> None:
        try:
            self.place.ask(call, "written")
        except FileNotFoundError as error:
            raise RelexError(
                f"{self.place.address} cannot be written: there is no such bucket ({error}); make "
                "it first, or check the name"
            ) from error

    def below(self, name: str) -> str:
        """Return the address of something in it."""
        return join(self.place.address, name)


def _rank(name: str) -> int:
    """Return when a file is sent: 0 before all that makes a folder look whole."""
    file = name.rpartition("/")[2]
    if file == _CARD:
        return len(_LAST) + 1
    return _LAST.index(file) + 1 if file in _LAST else 0
