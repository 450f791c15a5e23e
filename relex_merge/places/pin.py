"""The files of a model in a place, nailed to the state that they were in when a run began.

A place has no commits. What stands for one is the name, size and version of every file: its ETag,
generation or hash where the store has one, else the time of its last change. A file in another
state at the end of a run is an error, since its bytes may be of two checkpoints.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatch
from typing import Any

from relex_merge.errors import RelexError
from relex_merge.formatting import some
from relex_merge.places.address import normal
from relex_merge.places.filesystem import Place, open_place

# What stores call the version of a file, the best first: the first that is there is taken.
_VERSIONS = (
    *("VersionId", "generation", "ETag", "etag", "xet_hash", "blob_id", "md5Hash", "content_md5"),
    *("sha256", "checksum", "LastModified", "last_modified", "updated", "mtime", "created"),
)


class NoFilesError(RelexError):
    """A folder has nothing but other folders in it."""


@dataclass(frozen=True)
class FileState:
    """The state of a file, told by its store.

    Attributes:
        size: bytes.
        version: what changes with its content.
        modified: time of the last change, ISO 8601; None where the store does not say it.
    """

    size: int
    version: str
    modified: str | None = None


@dataclass(frozen=True)
class PlaceFile:
    """One file of a place.

    Attributes:
        place: the folder.
        file: its name.
        size: bytes, as listed.
        version: of its content, as listed.
    """

    place: Place
    file: str
    size: int
    version: str = ""

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return f"{self.place.address}/{self.file}"


@dataclass(frozen=True)
class PlacePin:
    """A model in a place, in the state that it was found in.

    Attributes:
        place: its folder.
        states: file → its state; of this folder without those below it, but for a checkpoint that
            a trainer spreads over folders, whose names are paths in it.
    """

    place: Place
    states: Mapping[str, FileState]
    sha = None  # a place has no commits

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files."""
        return tuple(self.states)

    @property
    def mark(self) -> list[Any]:
        """Return what is the same for the same files, as JSON."""
        states = sorted(self.states.items())
        return [self.place.address, *([name, s.size, s.version] for name, s in states)]

    @property
    def digest(self) -> str:
        """Return a hash of the mark, 64 hex digits."""
        return hashlib.sha256(json.dumps(self.mark).encode()).hexdigest()

    def file(self, name: str) -> PlaceFile:
        """Return one of the files, to read ranges of it."""
        return PlaceFile(self.place, name, self.states[name].size, self.states[name].version)

    def matching(self, patterns: Sequence[str]) -> list[str]:
        """Return the files that fit any of the glob patterns."""
        return [name for name in self.states if any(fnmatch(name, p) for p in patterns)]

    def changed(self, names: Sequence[str]) -> str | None:
        """Return what has happened to the first of these files that is not as it was; else None."""
        now: dict[str, FileState] = {}
        for folder in {name.rpartition("/")[0] for name in names}:
            place = open_place(f"{self.place.address}/{folder}") if folder else self.place
            with suppress(FileNotFoundError):
                found = files_in(place)
                now |= {f"{folder}/{name}".lstrip("/"): state for name, state in found.items()}
        for name in names:
            if now.get(name) != self.states[name]:
                what = "changed" if name in now else "was deleted"
                return f"{self.place.address}/{name} {what}"
        return None


def state_of(info: Mapping[str, Any]) -> FileState:
    """Return the state of a file for what its file system says of it."""
    version = next((info[key] for key in _VERSIONS if info.get(key) is not None), "")
    keys = ("LastModified", "last_modified", "updated", "mtime")
    when = next((info[key] for key in keys if info.get(key) is not None), None)
    modified = when.isoformat() if isinstance(when, datetime) else None
    return FileState(int(info["size"] or 0), str(version), modified)


def files_in(place: Place) -> dict[str, FileState]:
    """Return the files of a folder, by name, in the order of their names.

    Raises:
        RelexError: the place cannot be reached, or is a file.
        FileNotFoundError: there is no such folder.
    """

    def listing() -> list[dict[str, Any]]:
        place.files.invalidate_cache()
        return list(place.files.ls(place.path, detail=True))

    found: dict[str, FileState] = {}
    for info in place.ask(listing):
        path = str(info["name"]).rstrip("/")
        if path.strip("/") == place.path.strip("/"):
            if info["type"] == "file" and info["size"]:
                raise RelexError(f"{place.address} is a file; give the folder that it lies in")
            continue  # an empty object that stands for the folder
        if info["type"] == "file":
            found[path.rpartition("/")[2]] = state_of(info)
    return dict(sorted(found.items()))


def pin(address: str) -> PlacePin:
    """Return the model in a folder of a place, in its state of now, by one request.

    Raises:
        NoFilesError: there is nothing but folders in it.
        RelexError: there is no such folder, or the place refuses; the message names it.
    """
    place = open_place(normal(address))
    try:
        states = files_in(place)
    except FileNotFoundError as error:
        raise RelexError(f"{place.address} does not exist{beside(place)}") from error
    if not states:
        raise NoFilesError(f"{place.address} has no files in it{_below(place)}")
    return PlacePin(place, states)


def beside(place: Place) -> str:
    """Say what there is where a folder was expected."""
    parent = place.address.rpartition("/")[0]
    if parent.endswith(("/", ":")):
        return "; check the name of the bucket"
    try:
        names = _names(open_place(parent))
    except (RelexError, OSError):
        return "; check the name, and that the bucket exists"
    return f"; in {parent} there is {some(names)}"


def _below(place: Place) -> str:
    return f"; it holds the folders {some(_names(place))}"


def _names(place: Place) -> list[str]:
    paths = place.ask(lambda: place.files.ls(place.path, detail=False))
    return sorted(str(path).rstrip("/").rpartition("/")[2] for path in paths)
