"""Finished measurements on the disk, so that none is made twice.

One JSON file for each key, named by the SHA-256 of the key and written in one step: after a crash
a measurement is there whole or not at all. A key names everything that the result depends on:
model (by commit or content), task, settings, seed, questions.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relex_merge.errors import RelexError


class Store:
    """A folder of finished measurements; it is made when the first one is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: Mapping[str, Any]) -> Any | None:
        """Return what was kept under ``key``, None where nothing was.

        Raises:
            RelexError: the file is not what :meth:`put` writes.
        """
        file = self._file(key)
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RelexError(f"cannot read {file}: {error.strerror or error}") from error
        try:
            return json.loads(text)["result"]
        except (ValueError, KeyError, TypeError) as error:
            raise RelexError(
                f"{file} is broken; delete it, and its measurement is made again"
            ) from error

    def put(self, key: Mapping[str, Any], result: Any) -> None:
        """Keep a result that JSON can hold.

        Raises:
            RelexError: the folder cannot be written.
        """
        file = self._file(key)
        partial = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps({"key": dict(key), "result": result}), encoding="utf-8")
            partial.replace(file)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise RelexError(
                f"cannot keep a measurement in {self.folder}: {error.strerror or error}; free some "
                "room, or name another folder"
            ) from error

    def _file(self, key: Mapping[str, Any]) -> Path:
        text = json.dumps(dict(key), sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
