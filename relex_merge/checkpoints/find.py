"""The one way in: a folder on this disk or in a place, else a repo on the Hub."""

from __future__ import annotations

from pathlib import Path

from relex_merge.checkpoints.find_in_place import find_in_place
from relex_merge.checkpoints.find_local import find_local
from relex_merge.checkpoints.find_on_hub import find_on_hub
from relex_merge.checkpoints.locate import is_local_file, local_folder
from relex_merge.checkpoints.notes import packed_series
from relex_merge.checkpoints.series import NothingFoundError, Series
from relex_merge.hub.references import hub_reference, may_be_on_hub
from relex_merge.places.address import is_place


def find(series: str, pattern: str | None = None, cache_dir: str | None = None) -> Series:
    """Find the series in a local folder, a place or a Hub repo.

    Args:
        series: a folder; the address of one, as ``s3://bucket/run``; ``owner/name``, where
            branches, tags, folders of ``main`` and the commits on it are looked at; or
            ``owner/name[/folder]@revision``, where folders of that revision and the commits on it
            are.
        pattern: a regular expression whose first group is the step in the name of a branch, tag or
            folder, or in the title of a commit; by default what such names usually look like.
        cache_dir: the Hub's cache.

    Raises:
        NothingFoundError: there is no checkpoint.
        RelexError: whatever else is wrong.
    """
    if is_place(series):
        return find_in_place(series, pattern, cache_dir)
    folder = local_folder(series)
    if folder:
        return find_local(folder, pattern)
    path = series.partition("@")[0]
    if is_local_file(path):
        raise NothingFoundError(_file(path))
    if "/" not in path:
        raise NothingFoundError(f"{series} is no folder here, and a Hub repo is owner/name")
    if not may_be_on_hub(path):
        raise NothingFoundError(f"{series} is not a folder")
    return find_on_hub(hub_reference(series), pattern, cache_dir)


def _file(path: str) -> str:
    """Say what a file is that was given in place of a series."""
    packed = packed_series(str(Path(path).parent), [Path(path).name])
    if packed:
        return packed
    if Path(path).suffix in {".yml", ".yaml"}:
        return f"{path} is a file; if it is a recipe already, type: relex-merge run {path} OUT"
    return f"{path} is a file; give the folder that holds the folders of the checkpoints"
