"""Checkpoints below a folder of an object store, in the layouts that trainers leave on a disk.

One listing sees them all. Of the folders whose names have a step, index and configuration are
fetched; a run looks at the headers. A store shows no file before it is whole, so what matters here
is that all files are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from relex_merge.checkpoints.find_local import check_nameable, front_matter, layout_of
from relex_merge.checkpoints.grouping import Candidate, choose, grouped
from relex_merge.checkpoints.json_files import Json, peek_json
from relex_merge.checkpoints.locate import in_parallel
from relex_merge.checkpoints.notes import LeftOut, left_out, nothing_found, without_weights
from relex_merge.checkpoints.series import Base, Checkpoint, NothingFoundError, Series, end_of_run
from relex_merge.checkpoints.sharded import is_sharded
from relex_merge.checkpoints.steps import Named, compile_pattern, read_by
from relex_merge.errors import RelexError
from relex_merge.formatting import some
from relex_merge.places.download import bring
from relex_merge.places.filesystem import open_place
from relex_merge.places.listing import walk
from relex_merge.places.pin import PlacePin


@dataclass(frozen=True)
class _Folder:
    """A folder that holds a model, or should: its name below the run, its files, what they say."""

    name: str
    pin: PlacePin
    weights: Weights | None = None
    config: Json = field(default_factory=dict)
    fault: str | None = None

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
        _Folder(name, pin)
        for name, pin in there.items()
        if (is_model_folder(pin.files) or is_sharded(pin.files))
        and (pattern is not None or not any(map(is_beside, name.split("/"))))
    ]
    named = [(f, read_by(compiled, f.name)) for f in models if f.name]
    numbered = [(f, n) for f, n in named if n is not None]
    looked = in_parallel(lambda f: _look_into(f, cache_dir), [f for f, _ in numbered])
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


def _look_into(folder: _Folder, cache_dir: str | None) -> _Folder:
    """Return the folder with its weights checked as far as names and its index go."""
    pin, weights = folder.pin, None
    try:
        index = index_among(pin.files)
        here = bring(pin, [index] if index else [], cache_dir)
        weights = find_weights(pin.files, here)
        if weights is None:
            return replace(folder, fault=_without_weights(pin))
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


def _without_weights(pin: PlacePin) -> str:
    if is_sharded(pin.files):
        return "shards, which are read from a disk only: copy the folder here first"
    return without_weights(pin.files)


def _outermost(numbered: Sequence[tuple[_Folder, Named]]) -> list[tuple[_Folder, Named]]:
    """Drop what lies inside a whole checkpoint: it belongs to it."""
    whole = {f.name for f, _ in numbered if f.fault is None}
    return [
        (f, n)
        for f, n in numbered
        if not any(str(above) in whole for above in PurePosixPath(f.name).parents)
    ]


def _candidate(folder: _Folder, named: Named) -> Candidate:
    assert folder.weights is not None  # it is whole
    states = [folder.pin.states[file] for file in folder.weights.files]
    dates = [state.modified for state in states if state.modified]
    checkpoint = Checkpoint(
        named.step,
        folder.address,
        layout_of(named),
        size=sum(state.size for state in states),
        dtype=dtype(folder.config),
        date=max(dates, default=None),
        kind=folder.weights.kind,
    )
    return Candidate(checkpoint, named.shape, named.family, named.guessed)


def _left_out(folder: _Folder) -> LeftOut:
    return LeftOut(folder.name, folder.address, (), folder.fault or _without_weights(folder.pin))


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
