"""From references to checkpoints: where the files of each are, and which are brought here."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from relex_merge.checkpoints.files import (
    ADAPTER_CONFIG,
    SMALL_FILES,
    index_among,
    is_adapter,
    require_weights,
)
from relex_merge.checkpoints.sharded import Sharded, require_sharded
from relex_merge.errors import RelexError
from relex_merge.hub import download
from relex_merge.hub.references import HubReference, hub_reference, may_be_on_hub, no_such

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Snapshot:
    """One model as it is read: its reference, and its files on this disk or at a Hub commit.

    Attributes:
        reference: as the recipe has it, a Hub reference or an absolute folder path.
        pin: the Hub commit, None for a local folder.
        folder: the folder on this disk; for a streamed model without its weights, and for one
            between the base and the last checkpoint without anything but an index of shards.
        streamed: whether the weights are read from the Hub in ranges instead of from ``folder``.
        sharded: the shards that the weights are in, None where ``folder`` has them as a whole; then
            ``folder`` is the one with configuration and tokenizer.
    """

    reference: str
    pin: download.Pin | None
    folder: Path
    streamed: bool = False
    sharded: Sharded | None = None

    @property
    def sha(self) -> str | None:
        """The commit that is read, for Hub sources."""
        return self.pin.sha if self.pin else None

    @property
    def files(self) -> frozenset[str]:
        """Names of its files, at the commit or in the folder."""
        if self.pin and self.pin.files:
            return frozenset(self.pin.files)
        return frozenset(path.name for path in self.folder.iterdir())

    @property
    def is_adapter(self) -> bool:
        """Whether it is a PEFT adapter, and not a model that has one beside its own weights."""
        if self.sharded is not None:
            return self.sharded.kind == "adapter"
        return is_adapter(self.files)


def local_folder(text: str) -> Path | None:
    """Return the folder of that name on this disk, None where there is none."""
    try:
        folder = Path(text).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError):  # the name is too long, or of the home of no user
        return None


def locate(
    references: Sequence[str], *, cache_dir: str | None = None, stream: bool | None = None
) -> list[Snapshot]:
    """Pin every reference and bring here what is read from the disk.

    Configuration and tokenizer are taken from the first and the last of the references; those of
    the others are left where they are when they are streamed. Each moving ref is looked at once.

    Args:
        references: folders, or ``owner/name[/sub/folder][@revision]``.
        cache_dir: the Hub's cache.
        stream: True reads weights from the Hub in ranges, False downloads them to the cache, None
            streams what is not cached already.

    Raises:
        RelexError: the message names the reference.
    """
    found = _find(references, cache_dir)
    ends = {references[0], references[-1]}
    fetch = partial(_fetch, cache_dir=cache_dir, stream=stream, ends=ends)
    return in_parallel(lambda item: fetch(*item), list(zip(references, found, strict=True)))


def in_parallel(call: Callable[[A], B], arguments: Sequence[A]) -> list[B]:
    """Return the results of ``call`` in order, computed a few at a time.

    An error or Ctrl-C is passed on at once: downloads that are under way are not waited for.
    """
    pool = ThreadPoolExecutor(download.at_once()[0])
    try:
        return list(pool.map(call, arguments))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _find(references: Sequence[str], cache_dir: str | None) -> list[Path | download.Pin]:
    """Return local folders, and the commits that the other references point to now."""
    places = [_place(reference) for reference in references]
    moving = {(p.repo, p.revision): p for p in places if isinstance(p, HubReference)}
    found = in_parallel(lambda place: _commit(place, cache_dir), list(moving.values()))
    commits = dict(zip(moving, found, strict=True))
    return [
        commits[p.repo, p.revision].at(p.folder) if isinstance(p, HubReference) else p
        for p in places
    ]


def _place(reference: str) -> Path | HubReference:
    """Return the local folder of that name, else what is to be looked for on the Hub."""
    path, _, revision = reference.partition("@")
    folder = local_folder(path)
    if folder:
        if revision:
            raise RelexError(f"{reference}: a local folder has no revisions; drop @{revision}")
        return folder.resolve()
    if not may_be_on_hub(path):
        raise RelexError(f"{path} does not exist; it was taken for a local folder")
    return hub_reference(reference)


def _commit(place: HubReference, cache_dir: str | None) -> download.Commit:
    try:
        return download.pin(place.repo, place.revision, cache_dir)
    except RelexError as error:
        if place.folder:
            raise no_such(place, error) from error
        raise


def _fetch(
    reference: str,
    found: Path | download.Pin,
    *,
    cache_dir: str | None,
    stream: bool | None,
    ends: set[str],
) -> Snapshot:
    """Bring to the disk what is read from there."""
    if isinstance(found, Path):
        sharded = require_sharded(found, reference)
        if sharded is not None:
            return Snapshot(str(found), None, sharded.companions, sharded=sharded)
        return Snapshot(str(found), None, found)
    small = partial(download.download, found, SMALL_FILES, cache_dir)
    if not found.files:  # offline: the cache decides
        return Snapshot(reference, found, small())
    index = index_among(found.files)
    if index:
        download.download_file(found, index, cache_dir)
    folder = download.folder_of(found, cache_dir)
    weights = require_weights(found.files, folder, reference)
    streamed = stream is not False and weights.safetensors
    if streamed and not stream:
        streamed = not download.cached(found, weights.files, cache_dir)
    if not streamed:
        wanted = (*SMALL_FILES, *map(glob.escape, weights.files))
        folder = download.download(found, wanted, cache_dir)
        download.remember(found, reference.partition("@")[2] or None, cache_dir)
    elif reference in ends:
        folder = small()
    elif ADAPTER_CONFIG in found.files:
        download.download_file(found, ADAPTER_CONFIG, cache_dir)
    return Snapshot(reference, found, folder, streamed)
