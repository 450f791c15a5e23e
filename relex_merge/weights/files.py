"""Files of weights on this disk, read range by range in the state they were opened in.

A checkpoint may be written again, or deleted, while a run reads it. So every file is marked when it
is opened, by its size, its time of change and its inode; every read compares before and after, and
a run asks once more before it publishes. Files are open only while they are read, and never mapped:
any number of checkpoints goes with a small limit on open files, and a file that is cut off under a
reader is an error instead of a dead process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from relex_merge.checkpoints.archive import Reader
from relex_merge.checkpoints.shard_file import reader
from relex_merge.errors import RelexError
from relex_merge.weights.source import Read, Source


class SourceChangedError(RelexError):
    """A file is not what it was when the run opened it, so nothing read from it can be kept."""


@dataclass(frozen=True)
class FileMark:
    """The state of a file, told from its metadata alone.

    Attributes:
        path: the file; links are followed.
        size: in bytes.
        mtime_ns: time of the last change of its content.
        inode: number of the file on its file system.
        ctime_ns: time of the last change of content or metadata; it tells a file that was put in
            place of another from one to which a network file system gave a new inode.
    """

    path: Path
    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int

    @staticmethod
    def of(path: Path, now: os.stat_result) -> FileMark:
        """Return the mark of a file for what ``stat`` says of it."""
        return FileMark(path, now.st_size, now.st_mtime_ns, now.st_ino, now.st_ctime_ns)

    def as_json(self) -> list[Any]:
        """Return what must be the same in a later run for its bytes to be the same.

        A change of metadata alone, such as a hard link that is gone, leaves the bytes as they are.
        """
        return [self.path.name, self.size, self.mtime_ns, self.inode]

    def check(self, now: os.stat_result) -> None:
        """Raise SourceChangedError when ``stat`` says that the file is in another state now."""
        replaced = now.st_ino != self.inode and now.st_ctime_ns != self.ctime_ns
        if replaced or (now.st_size, now.st_mtime_ns) != (self.size, self.mtime_ns):
            raise SourceChangedError(
                f"{self.path} changed during the run: its size or its time of change is not what "
                "it was at the start; nothing was written, run again when nothing else writes to it"
            )

    def check_unchanged(self) -> None:
        """Raise SourceChangedError when the file is in another state now, but not when it is gone.

        Bytes that were read from a file that is deleted since were compared when they were read.
        """
        try:
            now = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise self.lost(error) from error
        self.check(now)

    def lost(self, error: OSError | EOFError) -> SourceChangedError:
        """Return the error of a file that can no longer be read."""
        reason = getattr(error, "strerror", None) or "it is shorter now"
        return SourceChangedError(
            f"{self.path} changed or vanished during the run ({reason}); nothing was written"
        )


@dataclass(frozen=True)
class Extent:
    """Where the bytes of a tensor begin: a file of the folder, and an offset in it."""

    file: str
    offset: int


class DiskFiles:
    """Files of a folder on this disk, each in the state that it was opened in.

    Args:
        folder: where they are.
    """

    remote = False
    parallel_reads = Source.parallel_reads

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._marks: dict[str, FileMark] = {}

    def name(self, file: str) -> str:
        """Return the path of a file."""
        return str(self._folder / file)

    def mark(self, file: str, stream: FileIO) -> int:
        """Note the state in which a file was opened; return its size in bytes."""
        now = os.fstat(stream.fileno())
        self._marks[file] = FileMark.of(self._folder / file, now)
        return now.st_size

    @contextmanager
    def opened(self, file: str) -> Iterator[tuple[Reader, int]]:
        """Yield what reads ranges of a file, and its bytes; the first time, note its state.

        Raises:
            RelexError: the file cannot be opened, or (SourceChangedError) not in that state.
        """
        if file in self._marks:
            with self.unchanged(file) as stream:
                yield reader(stream), self._marks[file].size
            return
        try:
            with (self._folder / file).open("rb", buffering=0) as stream:
                size = self.mark(file, stream)
                yield reader(stream), size
        except OSError as error:
            raise RelexError(
                f"{self.name(file)} cannot be read ({os.strerror(error.errno or 0)}); copy it again"
            ) from error

    @contextmanager
    def unchanged(self, file: str) -> Iterator[FileIO]:
        """Open a file again, and compare its state before and after."""
        mark = self._marks[file]
        try:
            with mark.path.open("rb", buffering=0) as stream:
                mark.check(os.fstat(stream.fileno()))
                yield stream
                mark.check(os.fstat(stream.fileno()))
        except (OSError, EOFError) as error:
            raise mark.lost(error) from error

    def fill(self, wanted: Mapping[str, Sequence[tuple[int, memoryview]]]) -> None:
        """Fill buffers from offsets of files that were opened, with a system call for each.

        Raises:
            SourceChangedError: a file is gone, or not in the state that it was opened in.
        """
        for file, parts in wanted.items():
            with self.unchanged(file) as stream:
                for offset, into in sorted(parts, key=lambda part: part[0]):
                    stream.seek(offset)
                    fill(stream, into)

    def fingerprint(self) -> list[Any]:
        """Return the state of every file when it was opened."""
        return [mark.as_json() for mark in self._marks.values()]

    def check_unchanged(self) -> None:
        """Raise SourceChangedError when a file is in another state than when it was opened."""
        for mark in self._marks.values():
            mark.check_unchanged()

    def stop(self) -> None:
        """Do nothing: a disk answers by itself."""


class FileSource(Source):
    """The tensors in some files of a folder, each in one piece at a known place.

    A subclass opens the files, and says where the tensors are.

    Args:
        folder: where the files are.
        label: names the model in messages.
    """

    def __init__(self, folder: Path, label: str) -> None:
        self.label = label
        self._folder = folder
        self._files = DiskFiles(folder)
        self._extents: dict[str, Extent] = {}

    def mark(self, file: str, stream: FileIO) -> int:
        """Note the state in which a file was opened; return its size in bytes."""
        return self._files.mark(file, stream)

    def read(self, reads: Sequence[Read]) -> None:
        """Fill every buffer, with one system call for each that is in one piece.

        Raises:
            SourceChangedError: a file is gone, or not in the state that it was opened in.
        """
        wanted: dict[str, list[tuple[int, memoryview]]] = {}
        for asked in reads:
            extent = self._extents[asked.name]
            wanted.setdefault(extent.file, []).append((extent.offset + asked.start, asked.into))
        self._files.fill(wanted)

    def fingerprint(self) -> list[Any]:
        """Return the label and, for every file, its state when it was opened."""
        return [self.label, *self._files.fingerprint()]

    def check_unchanged(self) -> None:
        """Raise SourceChangedError when a file is in another state than when it was opened."""
        self._files.check_unchanged()


def fill(stream: Any, into: memoryview) -> None:
    """Read from ``stream`` until ``into`` is full. Raises EOFError when there is not enough."""
    while len(into):
        got = stream.readinto(into)
        if not got:
            raise EOFError
        into = into[got:]
