"""From references to checkpoints: where each one's files are, and at which step it was taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from relex_merge import hub
from relex_merge.errors import RelexError

A = TypeVar("A")
B = TypeVar("B")

REQUESTS = 16  # to the Hub at a time, while references are pinned and headers read


@dataclass(frozen=True)
class Snapshot:
    """One model as it is read: its reference, and its files on this disk or at a Hub commit.

    reference: as the recipe has it, a Hub reference or an absolute folder path.
    pin: the Hub commit, None for a local folder.
    folder: the folder on this disk; for a streamed model without its weights, and for one between
        the base and the last checkpoint without anything but an index of shards.
    streamed: whether the weights are read from the Hub in ranges instead of from ``folder``.
    """

    reference: str
    pin: hub.Pin | None
    folder: Path
    streamed: bool = False

    @property
    def sha(self) -> str | None:
        """The commit that is read, for Hub sources."""
        return self.pin.sha if self.pin else None


def locate(
    references: Sequence[str], *, cache_dir: str | None = None, stream: bool | None = None
) -> list[Snapshot]:
    """Pin every reference (``folder`` or ``owner/name[@revision]``) and bring what is needed here.

    stream: True reads weights from the Hub in ranges, False downloads them to the cache, None
    streams what is not cached already. Configuration and tokenizer are taken from the first and the
    last of the references; those of the others are left where they are when they are streamed. Each
    moving ref is looked at once. Raises RelexError naming the reference.
    """
    with ThreadPoolExecutor(REQUESTS) as pool:
        found = list(pool.map(lambda reference: _find(reference, cache_dir), references))
    ends = {references[0], references[-1]}
    fetch = partial(_fetch, cache_dir=cache_dir, stream=stream, ends=ends)
    return in_parallel(lambda item: fetch(*item), list(zip(references, found, strict=True)))


def in_parallel(call: Callable[[A], B], arguments: Sequence[A]) -> list[B]:
    """Results of ``call`` in order, a few at a time.

    An error or Ctrl-C is passed on at once: downloads that are under way are not waited for.
    """
    pool = ThreadPoolExecutor(REQUESTS)
    try:
        return list(pool.map(call, arguments))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _find(reference: str, cache_dir: str | None) -> Path | hub.Pin:
    """A local folder, or the commit that the reference points to now."""
    path, _, revision = reference.partition("@")
    folder = Path(path).expanduser()
    if folder.is_dir():
        if revision:
            raise RelexError(f"{reference}: a local folder has no revisions; drop @{revision}")
        return folder.resolve()
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise RelexError(f"{path} does not exist; it was taken for a local folder")
    return hub.pin(path, revision or None, cache_dir)


def _fetch(
    reference: str,
    found: Path | hub.Pin,
    *,
    cache_dir: str | None,
    stream: bool | None,
    ends: set[str],
) -> Snapshot:
    """Bring to the disk what is read from there."""
    if isinstance(found, Path):
        return Snapshot(str(found), None, found)
    weights = found.weight_patterns()
    streamed = False
    if found.files and stream is not False and weights == hub.WEIGHT_FILES[0]:
        streamed = bool(stream) or not hub.cached(found, cache_dir)
    if streamed and reference not in ends:
        if hub.INDEX in found.files:
            hub.download_file(found, hub.INDEX, cache_dir)
        return Snapshot(reference, found, hub.folder_of(found, cache_dir), streamed)
    wanted = hub.SMALL_FILES if streamed else (*hub.SMALL_FILES, *weights)
    offline = not found.files
    folder = hub.download(found.repo, found.sha, wanted, cache_dir, local_files_only=offline)
    if not streamed and not offline:
        hub.remember(found, reference.partition("@")[2] or None, cache_dir)
    return Snapshot(reference, found, folder, streamed)
