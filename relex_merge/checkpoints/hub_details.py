"""What is known of a Hub checkpoint only when it is looked into: weights, size, dtype, date.

That is one request a checkpoint, so no more than LOOKED_INTO of a series are: the Hub counts
requests, and a run asks for each of its checkpoints anyway.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from relex_merge.checkpoints.configs import (
    check_same_model,
    check_unquantized,
    config_name,
    dtype,
    identity,
    read_config,
)
from relex_merge.checkpoints.files import TRAINER_STATE, total, weights_among
from relex_merge.checkpoints.json_files import Json, peek_json
from relex_merge.checkpoints.notes import without_weights
from relex_merge.checkpoints.series import Checkpoint, NothingFoundError, Series
from relex_merge.hub import download
from relex_merge.hub.errors import patiently
from relex_merge.hub.references import HubReference, hub_reference

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo
    from huggingface_hub.hf_api import RepoSibling

LOOKED_INTO = 100
REQUESTS = 16  # at a time


@dataclass(frozen=True)
class Detail:
    """A checkpoint with what its commit says.

    Attributes:
        checkpoint: with what was learnt about it.
        sizes: file → bytes, of its own folder; None where the server does not say.
        whole: whether it has weights.
        card: the head of its model card.
        content: the Hub's ids of the weight files.
    """

    checkpoint: Checkpoint
    sizes: Mapping[str, int | None]
    whole: bool
    card: Json = field(default_factory=dict)
    content: tuple[str | None, ...] = ()

    @property
    def pin(self) -> download.Pin:
        """Where its files are read."""
        place = hub_reference(self.checkpoint.reference)
        assert self.checkpoint.sha is not None  # it is on the Hub
        return download.Pin(place.repo, self.checkpoint.sha, tuple(self.sizes), place.folder)


def detail_of(checkpoint: Checkpoint, files: Sequence[RepoSibling] | None = None) -> Detail:
    """Look into one checkpoint. files: those of its commit, where they are known already."""
    from huggingface_hub import HfApi

    place = hub_reference(checkpoint.reference)
    if files is not None:
        return _detail(checkpoint, place, files)
    with download.reading(place.repo, place.revision):
        info = patiently(
            lambda: HfApi().model_info(place.repo, revision=place.revision, files_metadata=True)
        )
    parameters = info.safetensors.parameters if info.safetensors else {}
    date = info.last_modified
    known = replace(
        checkpoint,
        sha=info.sha,
        dtype=max(parameters, key=lambda name: parameters[name]) if parameters else None,
        date=checkpoint.date or (date.replace(microsecond=0).isoformat() if date else None),
    )
    return replace(_detail(known, place, info.siblings or ()), card=card_of(info))


def card_of(info: ModelInfo) -> Json:
    """Return what the model card of a revision says about the base."""
    return {"base_model": info.card_data.base_model} if info.card_data else {}


def _detail(checkpoint: Checkpoint, place: HubReference, files: Sequence[RepoSibling]) -> Detail:
    start = f"{place.folder}/" if place.folder else ""
    below = {
        f.rfilename.removeprefix(start): f.size for f in files if f.rfilename.startswith(start)
    }
    sizes = {name: size for name, size in below.items() if "/" not in name}
    weights = weights_among(sizes)
    if weights is None:
        return Detail(checkpoint, sizes, whole=False)
    size = total(sizes[file] for file in weights.files)
    ids = {file.rfilename: file.blob_id for file in files}
    content = tuple(ids[start + file] for file in weights.files)
    known = replace(checkpoint, size=size, kind=weights.kind)
    return Detail(known, sizes, whole=True, content=content)


def config_of(detail: Detail, cache_dir: str | None = None) -> Json:
    """Read a checkpoint's configuration, empty where it has none. Raises RelexError."""
    file = config_name(detail.checkpoint.kind)
    if file not in detail.sizes:
        return {}
    path = download.download_file(detail.pin, file, cache_dir)
    return read_config(path, f"{file} of {detail.checkpoint.reference}")


def trainer_state_of(detail: Detail, cache_dir: str | None = None) -> Json:
    """Read what the trainer wrote down beside a checkpoint, empty where it did not."""
    if TRAINER_STATE not in detail.sizes:
        return {}
    return peek_json(download.download_file(detail.pin, TRAINER_STATE, cache_dir))


def look_into(
    series: Series,
    steps: Sequence[int],
    cache_dir: str | None = None,
    progress: Callable[[int], Callable[[], object]] = lambda total: lambda: None,
) -> Series:
    """Return the series with more known of some checkpoints; local ones are known already.

    Checkpoints without weights, or of another kind than most, are left out and noted.

    Args:
        series: what was found.
        steps: those to look into. Of more than LOOKED_INTO as many are, evenly spread, with both
            ends.
        cache_dir: the Hub's cache.
        progress: given how many are looked into, returns what is called after each.

    Raises:
        RelexError: they are of different models, or none has weights.
    """
    wanted = set(steps)
    chosen = [c for c in series.checkpoints if c.step in wanted and c.sha]
    if not chosen:
        return series
    spread = _spread(chosen)
    files = _files(spread[0]) if series.layout == "subfolders" else None
    done = progress(len(spread))

    def look(checkpoint: Checkpoint) -> Detail:
        found = detail_of(checkpoint, files)
        done()
        return found

    with ThreadPoolExecutor(REQUESTS) as pool:
        details = list(pool.map(look, spread))
    if not any(detail.whole for detail in details):
        first = details[0]
        raise NothingFoundError(
            f"{series.source}: no checkpoint with weights; {first.checkpoint.reference}: "
            f"{without_weights(first.sizes)}"
        )
    good, notes = _of_one_kind(details)
    notes += _same_weights(good)
    good = _of_one_model(good, cache_dir)
    if series.layout == "subfolders":
        good = _dated(good)
    known = {detail.checkpoint.step: detail.checkpoint for detail in good}
    gone = {detail.checkpoint.step for detail in details} - set(known)
    if len(spread) < len(chosen):
        notes.append(
            f"size, dtype and date were looked up for {len(spread)} of {len(chosen)} checkpoints"
        )
    kept = tuple(known.get(c.step, c) for c in series.checkpoints if c.step not in gone)
    return replace(series, checkpoints=kept).noting(*notes)


def _spread(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Return at most LOOKED_INTO of them, both ends among them."""
    last, count = len(checkpoints) - 1, min(len(checkpoints), LOOKED_INTO)
    return [checkpoints[round(i * last / max(count - 1, 1))] for i in range(count)]


def _files(checkpoint: Checkpoint) -> Sequence[RepoSibling]:
    """Return all files of the one commit that holds every folder."""
    from huggingface_hub import HfApi

    repo = hub_reference(checkpoint.reference).repo
    with download.reading(repo, checkpoint.sha):
        info = patiently(
            lambda: HfApi().model_info(repo, revision=checkpoint.sha, files_metadata=True)
        )
    return info.siblings or ()


def _of_one_kind(details: Sequence[Detail]) -> tuple[list[Detail], list[str]]:
    """Return those with weights, of the kind that most are of, and notes on the others."""
    notes = [
        f"{d.checkpoint.reference} was left out: {without_weights(d.sizes)}"
        for d in details
        if not d.whole
    ]
    whole = [detail for detail in details if detail.whole]
    kind = Counter(detail.checkpoint.kind for detail in whole).most_common(1)[0][0]
    others = [str(d.checkpoint.step) for d in whole if d.checkpoint.kind != kind]
    if others:
        notes.append(
            f"there are adapters and whole models; a series has one kind, and {kind}s were taken: "
            f"step{'s' * (len(others) > 1)} {', '.join(others)} left out"
        )
    return [detail for detail in whole if detail.checkpoint.kind == kind], notes


def _same_weights(details: Sequence[Detail]) -> list[str]:
    """Return a note on steps that hold the very same weights: a save that never arrived."""
    steps: dict[tuple[str | None, ...], list[int]] = {}
    for detail in details:
        if None not in detail.content:  # not every server tells the ids
            steps.setdefault(detail.content, []).append(detail.checkpoint.step)
    same = [" = ".join(map(str, group)) for group in steps.values() if len(group) > 1]
    return [f"the weights of these steps are the same: {', '.join(same)}"] if same else []


def _of_one_model(details: Sequence[Detail], cache_dir: str | None) -> list[Detail]:
    """Compare the configurations of both ends and of every other size; return the checkpoints.

    Raises RelexError when they differ. A dtype that the Hub does not know is taken from them.
    """
    samples = {d.checkpoint.size: d for d in (*reversed(details), details[-1], details[0])}
    looked = {id(d): d for d in (details[0], details[-1], *samples.values())}
    said = {key: config_of(d, cache_dir) for key, d in looked.items()}
    for key, detail in looked.items():
        check_unquantized(said[key], detail.checkpoint.reference)
    check_same_model(
        [
            (d.checkpoint.reference, identity(said[key], d.checkpoint.kind))
            for key, d in looked.items()
        ],
        "a series is of one run; choose its checkpoints with --pattern or --observe",
    )
    dtypes = {d.checkpoint.size: dtype(said[key]) for key, d in looked.items()}
    return [
        replace(
            d,
            checkpoint=replace(d.checkpoint, dtype=d.checkpoint.dtype or dtypes[d.checkpoint.size]),
        )
        for d in details
    ]


def _dated(details: Sequence[Detail]) -> list[Detail]:
    """Return folders of one commit with the dates of the commits that changed them last."""
    from huggingface_hub import HfApi

    place = hub_reference(details[0].checkpoint.reference)
    tops = {d.checkpoint.step: hub_reference(d.checkpoint.reference).folder for d in details}
    shared = _shared_parent(list(tops.values()))
    with download.reading(place.repo, details[0].checkpoint.sha):
        entries = patiently(
            lambda: list(
                HfApi().list_repo_tree(
                    place.repo, shared or None, revision=details[0].checkpoint.sha, expand=True
                )
            )
        )
    dates = {
        entry.path: entry.last_commit.date.replace(microsecond=0).isoformat()
        for entry in entries
        if entry.last_commit
    }
    found = []
    for detail in details:
        folder = tops[detail.checkpoint.step]
        date = next((dates[top] for top in dates if f"{folder}/".startswith(f"{top}/")), None)
        found.append(replace(detail, checkpoint=replace(detail.checkpoint, date=date)))
    return found


def _shared_parent(folders: Sequence[str]) -> str:
    """Return the folder that all of them lie in."""
    parts = [folder.split("/")[:-1] for folder in folders]
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return "/".join(shared)
