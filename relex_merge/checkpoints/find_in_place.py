"""Checkpoints below a folder of an object store, in the layouts that trainers leave on a disk.

One listing sees them all. Of the folders whose names have a step, index and configuration are
fetched; a run looks at the headers. A store shows no file before it is whole, so what matters here
is that all files are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath

from relex_merge.checkpoints.base_model import or_step_zero, propose
from relex_merge.checkpoints.configs import (
    check_same_model,
    config_name,
    dtype,
    identity,
    read_config,
)
from relex_merge.checkpoints.files import (
    CARD,
    TRAINER_STATE,
    NotWholeError,
    Weights,
    find_weights,
    index_among,
    is_beside,
    is_model_folder,
)
from relex_merge.checkpoints.find_local import (
    COPIES,
    check_nameable,
    config_of_shards,
    front_matter,
    layout_of,
)
from relex_merge.checkpoints.grouping import Candidate, choose, grouped
from relex_merge.checkpoints.json_files import Json, peek_json
from relex_merge.checkpoints.locate import in_parallel
from relex_merge.checkpoints.notes import LeftOut, left_out, nothing_found, without_weights
from relex_merge.checkpoints.series import Base, Checkpoint, NothingFoundError, Series, end_of_run
from relex_merge.checkpoints.sharded import TRAINER_FOLDER, Sharded
from relex_merge.checkpoints.sharded_in_place import find_in_tree, shards_among
from relex_merge.checkpoints.steps import Named, compile_pattern, read_by
from relex_merge.errors import RelexError
from relex_merge.formatting import some
from relex_merge.places.download import bring
from relex_merge.places.filesystem import open_place
from relex_merge.places.listing import walk
from relex_merge.places.pin import PlacePin
from relex_merge.places.ranges import Transfers


@dataclass(frozen=True)
class _Folder:
    """A folder that holds a model, or should.

    Attributes:
        name: path below the run.
        pin: its files; where it holds shards, also those of the folders in it.
        weights: the files that hold the weights, None without any.
        config: what its configuration says, empty without one.
        fault: why it cannot be read, None when it is whole.
        shards: whether it is meant to hold a checkpoint in shards.
        sharded: those shards, None while they are not whole.
    """

    name: str
    pin: PlacePin
    weights: Weights | None = None
    config: Json = field(default_factory=dict)
    fault: str | None = None
    shards: bool = False
    sharded: Sharded | None = None

    @property
    def address(self) -> str:
        return self.pin.place.address


def find_in_place(address: str, pattern: str | None = None, cache_dir: str | None = None) -> Series:
    """Find the series below a folder of a place.

    Checkpoints without whole weights are left out and noted.

    Args:
        address: where the checkpoints lie.
        pattern: a regular expression on the path relative to ``address``, whose first group is the
            step; only folders that it finds count.
        cache_dir: where small files are kept.

    Raises:
        NothingFoundError: there is none; the message says what was looked for and what is there.
        RelexError: the pattern is not usable, the checkpoints are of different models, or the place
            refuses.
    """
    compiled = compile_pattern(pattern)
    root = open_place(address)
    there = walk(root)
    models = [
        folder
        for folder in _model_folders(there)
        if pattern is not None or not any(map(is_beside, folder.name.split("/")))
    ]
    named = [(f, read_by(compiled, f.name)) for f in models if f.name]
    numbered = [(f, n) for f, n in named if n is not None]
    look = partial(_look_into, transfers=Transfers(), cache_dir=cache_dir)
    looked = in_parallel(look, [f for f, _ in numbered])
    numbered = _outermost([(f, n) for f, (_, n) in zip(looked, numbered, strict=True)])
    whole = [_candidate(f, n) for f, n in numbered if f.fault is None]
    if not whole:
        faulty = [_left_out(f) for f, _ in numbered]
        raise NothingFoundError(nothing_found(root.address, faulty, _there(there, models, pattern)))
    choice = choose(grouped(whole, by_pattern=pattern is not None), by_pattern=pattern is not None)
    taken = choice.group.checkpoints
    check_nameable(taken)
    folders = {f.address: f for f, _ in numbered}
    check_same_model(
        [(c.reference, identity(folders[c.reference].config, c.kind)) for c in taken],
        "put each run into a folder of its own, or choose one with --pattern",
    )
    ends = [folders[taken[0].reference], folders[taken[-1].reference]]
    top = there.get("", PlacePin(root, {}))
    base, remarks = _base(top, ends[0], list(folders), cache_dir)
    steps = {c.step for c in taken}
    others = [_left_out(f) for f, n in numbered if f.fault and n.step not in steps]
    states = [_peek(pin, TRAINER_STATE, cache_dir) for pin in (top, ends[1].pin)]
    return Series(
        root.address,
        choice.group.layout,
        taken,
        or_step_zero(base, taken),
        end_of_run(taken[-1].step, states),
        (*choice.notes, *left_out(others), *remarks),
    )


def _model_folders(there: Mapping[str, PlacePin]) -> list[_Folder]:
    """Return the folders that hold a model, or should; of one in shards with the folders in it."""
    inner = [name for name in there if PurePosixPath(name).name == TRAINER_FOLDER]
    outer = {name.rpartition("/")[0] for name in inner}
    found = []
    for name in sorted({*there, *outer}.difference(inner)):
        tree = shards_among(there, name)
        if tree is not None:
            found.append(_Folder(name, tree, shards=True))
        elif name in there and is_model_folder(there[name].files):
            found.append(_Folder(name, there[name]))
    return found


def _look_into(folder: _Folder, transfers: Transfers, cache_dir: str | None) -> _Folder:
    """Return the folder with its weights checked as far as names and its index go."""
    pin, weights = folder.pin, None
    try:
        if folder.shards:
            return _look_into_shards(folder, transfers, cache_dir)
        index = index_among(pin.files)
        here = bring(pin, [index] if index else [], cache_dir)
        weights = find_weights(pin.files, here)
        if weights is None:
            return replace(folder, fault=without_weights(pin.files))
        if weights.orphans:
            fault = f"{weights.files[0]} is a shard, and there is no index"
            return replace(folder, weights=weights, fault=fault)
        name = config_name(weights.kind)
        if name in pin.files:
            bring(pin, [name], cache_dir)
        config = read_config(here / name, f"{folder.address}/{name}")
    except (NotWholeError, RelexError) as error:
        return replace(folder, weights=weights, fault=str(error))
    return replace(folder, weights=weights, config=config)


def _look_into_shards(folder: _Folder, transfers: Transfers, cache_dir: str | None) -> _Folder:
    """Return a folder with shards, of which names, sizes and the first file are looked at.

    Raises:
        NotWholeError: they are not whole.
    """
    found = find_in_tree(folder.pin, transfers, cache_dir)
    assert found is not None  # the names say so
    found.check()
    return replace(
        folder,
        weights=Weights(found.kind, tuple(map(found.within, found.files))),
        config=config_of_shards(found),
        sharded=found,
    )


def _outermost(numbered: Sequence[tuple[_Folder, Named]]) -> list[tuple[_Folder, Named]]:
    """Drop what lies inside a whole checkpoint and belongs to it; copies beside shards do not."""
    whole = {f.name: f.shards for f, _ in numbered if f.fault is None}

    def belongs(path: PurePosixPath) -> bool:
        above = [str(folder) for folder in path.parents if str(folder) in whole]
        copy = above == [str(path.parent)] and whole[above[0]] and path.name in COPIES
        return bool(above) and not copy

    return [(f, n) for f, n in numbered if not belongs(PurePosixPath(f.name))]


def _candidate(folder: _Folder, named: Named) -> Candidate:
    assert folder.weights is not None  # it is whole
    states = [folder.pin.states[file] for file in folder.weights.files]
    dates = [state.modified for state in states if state.modified]
    shards = folder.sharded
    checkpoint = Checkpoint(
        named.step,
        folder.address,
        shards.layout if shards else layout_of(named),
        size=sum(state.size for state in states),
        dtype=shards.dtype if shards else dtype(folder.config),
        date=max(dates, default=None),
        kind=folder.weights.kind,
    )
    return Candidate(checkpoint, named.shape, named.family, named.guessed)


def _left_out(folder: _Folder) -> LeftOut:
    files = folder.pin.files
    return LeftOut(folder.name, folder.address, files, folder.fault or without_weights(files))


def _there(found: Mapping[str, PlacePin], models: Sequence[_Folder], pattern: str | None) -> str:
    """Say what was looked for and what is there."""
    looked = f"what {pattern!r} finds" if pattern else "checkpoint-N, global_step_N and the like"
    if [model.name for model in models] == [""]:
        return f"it holds one model and no series; give the folder above it (looked for {looked})"
    folders = sorted(name for name in found if name)
    return f"looked for folders named {looked} with a model in them; there is: {some(folders)}"


def _base(
    top: PlacePin, first: _Folder, addresses: Sequence[str], cache_dir: str | None
) -> tuple[Base | None, list[str]]:
    """Return what the first checkpoint or the cards say that the run started from."""
    kind = first.weights.kind if first.weights else "model"
    labelled = [
        (f"{first.name}/{config_name(kind)}", first.config),
        (CARD, _card(top, cache_dir)),
        (f"{first.name}/{CARD}", _card(first.pin, cache_dir)),
    ]
    return propose(labelled, own=[top.place.address, *addresses])


def _card(pin: PlacePin, cache_dir: str | None) -> Json:
    return front_matter(bring(pin, [CARD], cache_dir) / CARD) if CARD in pin.files else {}


def _peek(pin: PlacePin, name: str, cache_dir: str | None) -> Json:
    return peek_json(bring(pin, [name], cache_dir) / name) if name in pin.files else {}
