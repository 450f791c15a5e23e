"""From references to checkpoints: where each one's files are, and at which step it was taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from relex_merge.checkpoints.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from relex_merge.errors import RelexError
from relex_merge.hub import download
from relex_merge.hub.references import HubReference, hub_reference, may_be_on_hub, no_such

A = TypeVar("A")
B = TypeVar("B")

ADAPTER_FILES = frozenset((ADAPTER_CONFIG, *ADAPTER_WEIGHTS))
MODEL_FILES = frozenset(
    f"{name}{end}"
    for name in ("model.safetensors", "pytorch_model.bin")
    for end in ("", ".index.json")
)
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
    pin: download.Pin | None
    folder: Path
    streamed: bool = False

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
        return bool(self.files & ADAPTER_FILES) and not self.files & MODEL_FILES


def locate(
    references: Sequence[str], *, cache_dir: str | None = None, stream: bool | None = None
) -> list[Snapshot]:
    """Pin every reference, a folder or ``owner/name[/sub/folder][@revision]``, and bring it here.

    stream: True reads weights from the Hub in ranges, False downloads them to the cache, None
    streams what is not cached already. Configuration and tokenizer are taken from the first and the
    last of the references; those of the others are left where they are when they are streamed. Each
    moving ref is looked at once. Raises RelexError naming the reference.
    """
    found = _find(references, cache_dir)
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


def _find(references: Sequence[str], cache_dir: str | None) -> list[Path | download.Pin]:
    """Local folders, and the commits that the other references point to now."""
    places = [_place(reference) for reference in references]
    moving = {(p.repo, p.revision): p for p in places if isinstance(p, HubReference)}
    found = in_parallel(lambda place: _commit(place, cache_dir), list(moving.values()))
    commits = dict(zip(moving, found, strict=True))
    return [
        commits[p.repo, p.revision].at(p.folder) if isinstance(p, HubReference) else p
        for p in places
    ]


def _place(reference: str) -> Path | HubReference:
    """The local folder of that name, else what is to be looked for on the Hub."""
    path, _, revision = reference.partition("@")
    folder = Path(path).expanduser()
    if folder.is_dir():
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
        raise no_such(place, error) from error


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
        return Snapshot(str(found), None, found)
    weights = found.weight_patterns()
    streamed = False
    if found.files and stream is not False and weights == download.WEIGHT_FILES[0]:
        streamed = bool(stream) or not download.cached(found, cache_dir)
    if streamed and reference not in ends:
        for file in (download.INDEX, ADAPTER_CONFIG):
            if file in found.files:
                download.download_file(found, file, cache_dir)
        return Snapshot(reference, found, download.folder_of(found, cache_dir), streamed)
    wanted = download.SMALL_FILES if streamed else (*download.SMALL_FILES, *weights)
    offline = not found.files
    folder = download.download(found, wanted, cache_dir)
    if not streamed and not offline:
        download.remember(found, reference.partition("@")[2] or None, cache_dir)
    return Snapshot(reference, found, folder, streamed)
