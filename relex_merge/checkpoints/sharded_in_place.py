"""Checkpoints in shards that lie in a place: their files, and what of them is brought here.

One listing sees the whole checkpoint. What describes it (configuration, tokenizer, ``.metadata``)
is brought to the cache, in folders as in the place; the weights stay and are read in ranges.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from relex_merge.checkpoints.files import ADAPTER_CONFIG, CONFIG, SMALL_FILES, weights_among
from relex_merge.checkpoints.sharded import (
    COMPANIONS,
    FSDP_CONFIG,
    LORA_FOLDER,
    LORA_META,
    METADATA,
    TRAINER_FOLDER,
    Sharded,
    is_sharded,
    is_weights,
    sharded_among,
)
from relex_merge.places.address import normal
from relex_merge.places.download import bring, folder_of
from relex_merge.places.filesystem import open_place
from relex_merge.places.listing import walk
from relex_merge.places.pin import FileState, NoFilesError, PlacePin, pin
from relex_merge.places.ranges import Transfers

# What tells form, kind and scaling of a checkpoint.
_DESCRIBING = {FSDP_CONFIG, LORA_META, METADATA, CONFIG, ADAPTER_CONFIG}


def pin_checkpoint(address: str) -> PlacePin:
    """Return a model in a folder of a place, in its state of now; of one in shards all folders.

    Raises:
        RelexError: there is no such folder, or the place refuses; the message names it.
    """
    try:
        found = pin(address)
    except NoFilesError:
        tree = shards_among(walk(open_place(normal(address))))
        if tree is None:
            raise
        return tree
    if weights_among(found.files) is not None:
        return found
    return shards_among(walk(found.place)) or found


def shards_among(there: Mapping[str, PlacePin], name: str = "") -> PlacePin | None:
    """Return the files of a checkpoint in shards with those of its folders; None where it is none.

    Args:
        there: path of a folder → its files.
        name: path of the checkpoint among them.
    """
    own = there.get(name)
    below = {
        inner: there[path]
        for inner in (TRAINER_FOLDER, COMPANIONS, LORA_FOLDER)
        if (path := f"{name}/{inner}".lstrip("/")) in there
    }
    files = own.files if own else ()
    if weights_among(files) is not None or not is_sharded(files, below):
        return None
    address = own.place.address if own else below[TRAINER_FOLDER].place.address.rpartition("/")[0]
    states: dict[str, FileState] = {}
    for inner, folder in {**({"": own} if own else {}), **below}.items():
        small = set(folder.matching(SMALL_FILES))
        for file, state in folder.states.items():
            if file in small or (inner in ("", TRAINER_FOLDER) and is_weights(file)):
                states[f"{inner}/{file}".lstrip("/")] = state
    return PlacePin(open_place(address), dict(sorted(states.items())))


def find_in_tree(
    tree: PlacePin, transfers: Transfers, cache_dir: str | None = None, *, all_small: bool = False
) -> Sharded | None:
    """Return the shards of a checkpoint, None where it is none; what describes it is brought here.

    Args:
        tree: of :func:`pin_checkpoint`.
        transfers: reads what the files say.
        cache_dir: where small files are kept.
        all_small: whether tokenizer and everything else that is small is brought too.

    Raises:
        NotWholeError: there are shards, but not all of them.
        RelexError: the place refuses.
    """
    top = {name for name in tree.files if "/" not in name}
    below = {name.partition("/")[0] for name in tree.files if "/" in name}
    if weights_among(top) is not None or not is_sharded(top, below):
        return None
    wanted = tree.matching(SMALL_FILES) if all_small else []
    described = [name for name in tree.files if name.rpartition("/")[2] in _DESCRIBING]
    folder = bring(tree, list(dict.fromkeys([*wanted, *described])), cache_dir)
    inner = {n.partition("/")[2] for n in tree.files if n.startswith(f"{TRAINER_FOLDER}/")}
    return sharded_among(folder, top, inner if TRAINER_FOLDER in below else None, tree, transfers)


def companions_in_place(address: str, cache_dir: str | None = None) -> Path:
    """Return a folder on this disk with the configuration of a model in a place, if it has one.

    Raises:
        RelexError: there is no such folder, or the place refuses.
    """
    found = pin_checkpoint(address)
    names = [name for name in (f"{COMPANIONS}/{CONFIG}", CONFIG) if name in found.files]
    bring(found, names, cache_dir)
    inner = COMPANIONS if f"{COMPANIONS}/{CONFIG}" in names else ""
    return folder_of(found, cache_dir) / inner
