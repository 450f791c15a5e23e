"""Outputs appear whole or not at all, and a killed run is not lost.

Everything is written to a hidden folder beside OUT and renamed at the end. While a run goes on,
that folder holds a manifest: a key that says what is being made from what, and which shards are
finished. The same run, started again, goes on from there; any other starts afresh.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from relex_merge.errors import RelexError, disk_errors

MANIFEST = "manifest.json"


def check_free(out: Path, force: bool) -> None:
    """Raise RelexError when OUT is something that must not be overwritten."""
    if out.is_file():
        raise RelexError(f"{out} is a file; give a folder that does not exist yet")
    if Path.cwd().is_relative_to(out):
        raise RelexError(f"{out} cannot be renamed while you are in it; name a folder below it")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise RelexError(f"{out} is not empty; choose another folder, or replace it with --force")


class Staging:
    """The hidden folder in which OUT takes shape. Make one with :func:`staging`."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out.parent / f".{out.name}.relex-partial"
        self.content = self.folder / "content"
        self._key = ""
        self.begun = False
        self.finished: list[int] = []

    def begin(self, key: dict[str, Any] | None) -> None:
        """Keep what an earlier run with the same key finished, drop everything else.

        ``key`` None: nothing can be continued.
        """
        self.begun = True
        text = json.dumps(key, sort_keys=True)
        self._key = hashlib.sha256(text.encode()).hexdigest()
        earlier = self._read()
        if key is not None and earlier.get("key") == self._key:
            self.finished = list(earlier["finished"])
            for path in self.content.rglob("*"):  # texts depend on options that no key holds
                if path.is_file() and path.suffix != ".safetensors":
                    path.unlink()
            return
        with disk_errors(self.folder):
            shutil.rmtree(self.content, ignore_errors=True)
            self.content.mkdir(parents=True)
        self._write()

    def finish_shard(self, index: int) -> None:
        """Note that shard ``index`` is on the disk for good."""
        self.finished.append(index)
        self._write()

    def publish(self, force: bool) -> None:
        """Rename the finished folder to OUT, and take the manifest away."""
        check_free(self.out, force)
        with disk_errors(self.out):
            replaced = self.folder / "replaced"
            if self.out.is_dir():
                shutil.rmtree(replaced, ignore_errors=True)
                self.out.rename(replaced)
            try:
                self.content.rename(self.out)
            except OSError:
                if replaced.is_dir():
                    replaced.rename(self.out)
                raise
            shutil.rmtree(self.folder)

    def discard(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self) -> dict[str, Any]:
        try:
            manifest = json.loads((self.folder / MANIFEST).read_text())
        except (OSError, ValueError):
            return {}
        return manifest if isinstance(manifest, dict) else {}

    def _write(self) -> None:
        new = self.folder / f"{MANIFEST}.new"
        with disk_errors(new):
            new.write_text(json.dumps({"key": self._key, "finished": self.finished}))
            new.replace(self.folder / MANIFEST)


@contextmanager
def staging(out: Path, force: bool) -> Iterator[Staging]:
    """The staging folder of OUT, for one process at a time; made by :meth:`Staging.begin`.

    Left by an error with nothing finished, it is removed; with finished shards, or after a kill, it
    stays for the next run, also when that one fails before it begins. Raises RelexError when OUT is
    in the way or cannot be made.
    """
    from filelock import FileLock, Timeout

    check_free(out, force)
    stage = Staging(out)
    made_parent = not out.parent.exists()
    with disk_errors(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out.parent / f".{out.name}.relex-lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RelexError(f"another run is writing {out}; wait for it") from error
    try:
        yield stage
    except BaseException as error:
        if stage.begun and not stage.finished:
            stage.discard()
        elif stage.begun and isinstance(error, RelexError):
            raise RelexError(
                f"{error}; what is finished is kept in {stage.folder}, and the same command goes "
                "on from there"
            ) from error
        raise
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        if made_parent:
            with suppress(OSError):  # it holds OUT, or what the next run goes on from
                out.parent.rmdir()
