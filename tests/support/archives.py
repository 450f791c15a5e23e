"""Files of ``torch.save`` taken apart and put together again by the zipfile module."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path


def records(path: Path) -> dict[str, bytes]:
    """The records of an archive, by their names behind the folder that they are in."""
    with zipfile.ZipFile(path) as archive:
        return {n.partition("/")[2]: archive.read(n) for n in archive.namelist()}


def write_archive(
    path: Path, content: dict[str, bytes], compression: int = zipfile.ZIP_STORED
) -> None:
    """Write records as torch lays them out, but for the padding before their bytes."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(f"archive/{name}", data)


def edit(path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """Change records of an archive; their checksums are right afterwards."""
    content = records(path)
    change(content)
    write_archive(path, content)
