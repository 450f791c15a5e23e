"""Outputs appear whole or not at all, and a killed run is not lost.

Everything is written to a hidden folder beside OUT. While a run goes on, that folder holds a
manifest: a key that says what is being made from what, and the files of every finished shard. The
same run, started again, goes on from there; any other starts afresh.

When all is written the manifest lists it, an old OUT and the new one change places, in one step
where the system can do that and by two renames elsewhere, and only then is the old one deleted.
Wherever that is interrupted, the next run on this OUT ends it first (:meth:`Staging.recover`).
Nothing is believed of a manifest whose files are not all there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from relex_merge.errors import RelexError, disk_errors
from relex_merge.pipeline.exchange import exchange
from relex_merge.pipeline.lock import Lock, locked
from relex_merge.pipeline.options import Notify, keep_silent
from relex_merge.places.address import without_scheme

MANIFEST = "manifest.json"


def check_free(out: Path, force: bool) -> None:
    """Raise RelexError when OUT is something that must not, or cannot, be replaced."""
    with disk_errors(out):
        if out.exists() and not out.is_dir():
            kind = "a file" if out.is_file() else "no folder"
            raise RelexError(f"{out} is {kind}; give a folder that does not exist yet")
        if Path.cwd().is_relative_to(out):
            raise RelexError(f"{out} cannot be renamed while you are in it; name a folder below it")
        if os.path.ismount(out):
            raise RelexError(f"{out} is a mount point; name a folder below it")
        if not force and not _is_vacant(out):
            raise RelexError(
                f"{out} is not empty; choose another folder, or replace it with --force"
            )


def check_free_ahead(out: Path, force: bool) -> None:
    """Check the same before a run; what an earlier run was stopped in is left for that to judge."""
    with disk_errors(out):
        begun = _staging_folder(out).exists()
    if not begun:
        check_free(out, force)


def _staging_folder(out: Path) -> Path:
    return out.parent / f".{out.name}.relex-partial"


def resolved(out: str | Path) -> Path:
    """Return the absolute path of OUT, links followed. Raises RelexError where they go in circles.

    Args:
        out: as the user wrote it.
    """
    try:
        return without_scheme(str(out)).resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError before Python 3.13
        raise RelexError(f"{out} is a link that leads nowhere: {error}; name a folder") from error


class Staging:
    """The hidden folder in which OUT takes shape. Make one with :func:`staging`.

    Attributes:
        out: where the output will be.
        folder: the hidden folder.
        content: what will be OUT.
        replaced: where an old OUT waits for its deletion.
        begun: whether this run has begun to write.
        ended: whether an earlier run of the same command was found complete, and put in place.
    """

    def __init__(self, out: Path, lock: Lock, command: Any, notify: Notify) -> None:
        self.out = out
        self.folder = _staging_folder(out)
        self.content = self.folder / "content"
        self.replaced = out.parent / f".{out.name}.relex-replaced"
        self.begun = False
        self.ended = False
        self._lock = lock
        self._notify = notify
        self._command = _digest(command)
        self._key = ""
        self._shards: dict[str, dict[str, int]] = {}

    @property
    def finished(self) -> tuple[int, ...]:
        """Indices of the shards that are finished."""
        return tuple(int(index) for index in self._shards)

    def recover(self) -> None:
        """End what an earlier run was interrupted in while it put OUT in its place."""
        manifest = self._read()
        complete = manifest.get("complete")
        with disk_errors(self.out):
            if complete and self._is_in_place(manifest.get("inode")):
                self._set_aside(self.content)
            elif complete and self._holds(complete, self.folder) and _is_vacant(self.out):
                self._move_in()
            if self.replaced.is_dir() and not self.out.exists():
                self.replaced.rename(self.out)
        if self.content.is_dir():
            return
        self.ended = bool(complete) and manifest.get("command") == self._command
        self.ended = self.ended and self._holds(complete or {}, self.folder, self.out)
        self._tidy()

    def begin(self, key: Mapping[str, Any] | None) -> None:
        """Keep what an earlier run with the same key finished, drop everything else.

        Args:
            key: says what is made from what; None where nothing can be continued.
        """
        self.begun = True
        self._key = _digest(key)
        earlier = self._read()
        with disk_errors(self.folder):
            if key is not None and earlier.get("key") == self._key:
                shards = earlier.get("finished", {})
                self._shards = {i: f for i, f in shards.items() if self._holds(f, self.folder)}
                self._write()
                for path in self.content.rglob("*"):  # texts depend on options that no key holds
                    if path.is_file() and path.suffix != ".safetensors":
                        path.unlink()
                return
            self.discard()
            self.content.mkdir(parents=True)
            self._write()

    def finish_shard(self, index: int, files: Iterable[Path]) -> None:
        """Note that a shard is on the disk for good.

        Args:
            index: of the shard.
            files: all that belong to it, in the staging folder.
        """
        self._lock.check()
        self._shards[str(index)] = self._sizes(files)
        with disk_errors(self.folder):
            self._write()

    def forget(self) -> None:
        """Let nothing that was finished be kept: the user has refused it."""
        self._shards.clear()

    def publish(self, force: bool) -> None:
        """Put the finished folder in OUT's place, and only then delete what was there."""
        self._lock.check()
        check_free(self.out, force)
        with disk_errors(self.out):
            self._write(self._sizes(p for p in self.content.rglob("*") if p.is_file()))
            self._move_in()
        self._tidy()

    def discard(self) -> None:
        """Leave nothing behind; the manifest goes first, so that nobody believes the rest."""
        with suppress(OSError):
            self._manifest.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _manifest(self) -> Path:
        return self.folder / MANIFEST

    def _move_in(self) -> None:
        """Put the content in OUT's place, and what is there aside."""
        if self.out.exists():
            if exchange(self.content, self.out):
                self._set_aside(self.content)
                return
            self._set_aside(self.out)
        try:
            self.content.rename(self.out)
        except OSError:
            if self.replaced.is_dir():
                self.replaced.rename(self.out)
            raise

    def _set_aside(self, old: Path) -> None:
        shutil.rmtree(self.replaced, ignore_errors=True)
        old.rename(self.replaced)

    def _is_in_place(self, inode: int | None) -> bool:
        """Tell whether OUT is the content of that inode, and the old OUT is where that was."""
        return self.content.is_dir() and self.out.is_dir() and self.out.stat().st_ino == inode

    def _tidy(self) -> None:
        """Delete the old OUT and the staging folder; the manifest stays until the rest is gone."""
        shutil.rmtree(self.replaced, ignore_errors=True)
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path != self._manifest:
                path.unlink(missing_ok=True)
        self.discard()
        if self.replaced.exists():
            self._notify(f"what was at {self.out} could not be deleted; it is in {self.replaced}")

    def _sizes(self, files: Iterable[Path]) -> dict[str, int]:
        return {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in files}

    def _holds(self, files: Mapping[str, int], folder: Path, content: Path | None = None) -> bool:
        """Tell whether all files that a manifest lists are there.

        Args:
            files: path in the staging folder → bytes.
            folder: the staging folder.
            content: where its content is now, if it has been moved.
        """
        for name, size in files.items():
            path = folder / name
            if content is not None:
                path = content / path.relative_to(self.content)
            if not path.is_file() or path.stat().st_size != size:
                return False
        return True

    def _read(self) -> dict[str, Any]:
        try:
            manifest = json.loads(self._manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        well_formed = isinstance(manifest, dict) and isinstance(manifest.get("finished"), dict)
        return manifest if well_formed else {}

    def _write(self, complete: Mapping[str, int] | None = None) -> None:
        text = json.dumps(
            {
                "key": self._key,
                "command": self._command,
                "finished": self._shards,
                "complete": complete,
                "inode": self.content.stat().st_ino if complete else None,
            }
        )
        new = self.folder / f"{MANIFEST}.new"
        with disk_errors(new):
            new.write_text(text, encoding="utf-8")
            new.replace(self._manifest)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _is_vacant(out: Path) -> bool:
    """Tell whether nothing is at OUT that could be lost."""
    return not out.exists() or (out.is_dir() and not any(out.iterdir()))


@contextmanager
def staging(
    out: Path,
    force: bool,
    *,
    command: Any = None,
    notify: Notify = keep_silent,
    make: Callable[[Path, Lock, Any, Notify], Staging] = Staging,
    shown: str | None = None,
) -> Iterator[Staging]:
    """Give the staging folder of OUT to one run at a time; :meth:`Staging.begin` makes it.

    Left by an error with nothing finished, it is removed; with finished shards, or after a kill, it
    stays for the next run, also when that one fails before it begins.

    Args:
        out: absolute path of the output.
        force: whether a folder that is not empty may be replaced.
        command: says what was asked for (JSON), so that the same command knows its own result.
        notify: called with remarks for the user.
        make: makes the staging folder's object, of a kind of its own where OUT is no folder.
        shown: what to call OUT where another run writes it; by default its path.

    Raises:
        RelexError: OUT is in the way, cannot be made, or is being written by another run.
    """
    file = out.parent / f".{out.name}.relex-lock"
    with _parent(out), locked(file, shown or out, notify) as lock:
        stage = make(out, lock, command, notify)
        stage.recover()
        if not stage.ended:
            check_free(out, force)
        try:
            yield stage
        except BaseException as error:
            _leave(stage, error, notify)
            raise


def _leave(stage: Staging, error: BaseException, notify: Notify) -> None:
    """Keep what the next run can use, and say so; drop the rest."""
    stage.recover()  # an interruption may have met the renaming
    if not stage.begun or not stage.content.is_dir():
        return
    if not stage.finished:
        stage.discard()
        return
    kept = f"what is finished is kept in {stage.folder}, and the same command goes on from there"
    if isinstance(error, RelexError):
        error.args = (f"{error}; {kept}",)
        return
    notify(f"{kept}; to drop it instead: rm -r {stage.folder}")


@contextmanager
def _parent(out: Path) -> Iterator[None]:
    """Make the folders that OUT is to lie in; those that stay empty are removed again."""
    check = [out.parent, *out.parent.parents]
    with disk_errors(out.parent):
        made = [folder for folder in check if not folder.exists()]
        out.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # it holds OUT, or what the next run goes on from
            for folder in made:
                folder.rmdir()
