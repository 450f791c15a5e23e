"""From references to checkpoints: where the files of each are, and which are brought here."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from relex_merge.checkpoints.files import (
    ADAPTER_CONFIG,
    SMALL_FILES,
    NotWholeError,
    index_among,
    is_adapter,
    require_weights,
)
from relex_merge.checkpoints.sharded import Sharded, require_sharded
from relex_merge.checkpoints.sharded_in_place import find_in_tree, pin_checkpoint
from relex_merge.errors import RelexError
from relex_merge.hub import download
from relex_merge.hub.references import HubReference, hub_reference, may_be_on_hub, no_such
from relex_merge.places import download as places
from relex_merge.places.address import is_place, normal, without_scheme
from relex_merge.places.pin import PlacePin
from relex_merge.places.ranges import Transfers
from relex_merge.places.together import together

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Snapshot:
    """One model as it is read: its reference, and its files on this disk, the Hub or in a place.

    Attributes:
        reference: as the recipe has it, a Hub reference, an address or an absolute folder path.
        pin: the Hub commit, or the state of a folder in a place; None for a local folder.
        folder: the folder on this disk; for a streamed model without its weights, and for one
            between the base and the last checkpoint without anything but an index of shards.
        streamed: whether the weights are read in ranges from where they lie instead of from
            ``folder``.
        sharded: the shards that the weights are in, None where ``folder`` has them as a whole; of
            shards, ``folder`` is the one with configuration and tokenizer.
    """

    reference: str
    pin: download.Pin | PlacePin | None
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
        folder = None if is_place(text) else without_scheme(text).expanduser()
        return folder if folder and folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # the name is too long, or of the home of no user
        return None


def is_local_file(text: str) -> bool:
    """Tell whether there is a file of that name on this disk."""
    try:
        return Path(text).expanduser().is_file()
    except (OSError, RuntimeError, ValueError):
        return False


def locate(
    references: Sequence[str], *, cache_dir: str | None = None, stream: bool | None = None
) -> list[Snapshot]:
    """Pin every reference and bring here what is read from the disk.

    Configuration and tokenizer are taken from the first and the last of the references; those of
    the others are left where they are when they are streamed. Each moving ref is looked at once.

    Args:
        references: folders, ``owner/name[/sub/folder][@revision]``, or addresses of places.
        cache_dir: the Hub's cache.
        stream: True reads weights in ranges from where they lie, False downloads them to the cache,
            None streams what is not cached already.

    Raises:
        RelexError: the message names the reference.
    """
    found = _find(references, cache_dir)
    ends = {references[0], references[-1]}
    transfers = Transfers()
    fetch = partial(_fetch, transfers=transfers, cache_dir=cache_dir, stream=stream, ends=ends)
    return in_parallel(lambda item: fetch(*item), list(zip(references, found, strict=True)))


def check_reference(reference: str) -> str | None:
    """Return the Hub repo that a reference is of, None for a local folder and an address.

    Raises:
        RelexError: it is a local folder that is not there, or that is given a revision.
    """
    place = _named(reference)
    return place.repo if isinstance(place, HubReference) else None


def in_parallel(call: Callable[[A], B], arguments: Sequence[A]) -> list[B]:
    """Return the results of ``call`` in order, computed a few at a time.

    An error or Ctrl-C is passed on at once: downloads that are under way are not waited for.
    """
    return together(call, arguments, download.at_once()[0])


def _find(references: Sequence[str], cache_dir: str | None) -> list[Path | download.Pin | PlacePin]:
    """Return local folders, and the states that the other references point to now."""
    named = [_named(reference) for reference in references]
    moving = {(p.repo, p.revision): p for p in named if isinstance(p, HubReference)}
    found = in_parallel(lambda place: _commit(place, cache_dir), list(moving.values()))
    commits = dict(zip(moving, found, strict=True))
    addresses = [p for p in named if isinstance(p, str)]
    pins = dict(zip(addresses, in_parallel(pin_checkpoint, addresses), strict=True))
    return [
        commits[p.repo, p.revision].at(p.folder)
        if isinstance(p, HubReference)
        else (pins[p] if isinstance(p, str) else p)
        for p in named
    ]


def _named(reference: str) -> Path | HubReference | str:
    """Return the local folder of that name, the address, or what to look for on the Hub."""
    if is_place(reference):
        return normal(reference)
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
    found: Path | download.Pin | PlacePin,
    *,
    transfers: Transfers,
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
    if isinstance(found, PlacePin):
        shards = _fetch_shards(found, transfers, cache_dir, stream, reference in ends)
        return shards or _fetch_from_place(found, cache_dir, stream, reference in ends)
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


def _fetch_shards(
    tree: PlacePin,
    transfers: Transfers,
    cache_dir: str | None,
    stream: bool | None,
    is_end: bool,
) -> Snapshot | None:
    """Bring here what describes a checkpoint in shards, and the shards unless they are streamed."""
    address = tree.place.address
    try:
        found = find_in_tree(tree, transfers, cache_dir, all_small=is_end)
        if found is None:
            return None
        names = [found.within(file) for file in found.files]
        streamed = stream is not False
        if streamed and not stream:
            streamed = not places.is_here(tree, names, cache_dir)
        if not streamed:
            places.bring(tree, [*tree.matching(SMALL_FILES), *names], cache_dir)
            found = replace(found, pin=None)
        found.check()
    except NotWholeError as error:
        raise RelexError(f"{address}: {error}") from error
    return Snapshot(address, tree, found.companions, streamed, found)


def _fetch_from_place(
    found: PlacePin, cache_dir: str | None, stream: bool | None, is_end: bool
) -> Snapshot:
    """Bring to the disk what is read from there: as for the Hub, with a cache of its own."""
    address = found.place.address
    small = found.matching(SMALL_FILES)
    index = index_among(found.files)
    folder = places.bring(found, [index] if index else [], cache_dir)
    weights = require_weights(found.files, folder, address)
    streamed = stream is not False and weights.safetensors
    if streamed and not stream:
        streamed = not places.is_here(found, weights.files, cache_dir)
    if not streamed:
        places.bring(found, [*small, *weights.files], cache_dir)
    elif is_end:
        places.bring(found, small, cache_dir)
    elif ADAPTER_CONFIG in found.files:
        places.bring(found, [ADAPTER_CONFIG], cache_dir)
    return Snapshot(address, found, folder, streamed)
