"""Checkpoints in a Hub repo: branches, tags, folders of one revision, commits on a branch.

Three requests see them all (a list of commits has pages): refs, the files of the revision, and its
history. Only the ends of the series are looked into here; :mod:`details` does it for the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from relex_merge.checkpoints import configs
from relex_merge.checkpoints.base_model import or_step_zero, propose
from relex_merge.checkpoints.details import Detail, card_of, detail_of, json_of
from relex_merge.checkpoints.find_local import TRAINER_STATE
from relex_merge.checkpoints.grouping import choose, grouped
from relex_merge.checkpoints.hub_layouts import (
    OUR_OUTPUTS,
    Subfolders,
    from_commits,
    from_refs,
    from_subfolders,
)
from relex_merge.checkpoints.names import compile_pattern
from relex_merge.checkpoints.series import NothingFoundError, Series
from relex_merge.errors import RelexError
from relex_merge.hub.download import reading
from relex_merge.hub.errors import patiently
from relex_merge.hub.references import HubReference, no_such

if TYPE_CHECKING:
    from huggingface_hub import GitCommitInfo, GitRefs, ModelInfo

_SHOWN = 8  # names in a message


@dataclass(frozen=True)
class Overview:
    """What there is in a repo. refs: None when one revision was asked for."""

    place: HubReference
    refs: GitRefs | None
    info: ModelInfo
    commits: Sequence[GitCommitInfo]

    @property
    def sizes(self) -> dict[str, int]:
        """Path → bytes of every file of the revision."""
        return {file.rfilename: file.size or 0 for file in self.info.siblings or ()}


def find_on_hub(place: HubReference, pattern: str | None, cache_dir: str | None = None) -> Series:
    """The series in a repo, or in one revision of it. Raises RelexError; see ``search.find``."""
    compiled = compile_pattern(pattern)
    seen = _overview(place)
    folders = from_subfolders(place, str(seen.info.sha), seen.sizes, compiled)
    candidates = list(folders.found)
    left_out: list[str] = []
    if seen.refs is not None:
        candidates += from_refs(place.repo, "branches", seen.refs.branches, compiled)
        candidates += from_refs(place.repo, "tags", seen.refs.tags, compiled)
        ours = [r.name for r in seen.refs.branches if r.name.startswith(OUR_OUTPUTS)]
        left_out += [f"left out, since they are extrapolations: {', '.join(ours)}"] if ours else []
    if not place.folder:
        candidates += from_commits(place.repo, seen.commits, compiled)
    if not candidates:
        raise NothingFoundError(_nothing(seen, folders, pattern))
    groups = grouped(candidates, by_pattern=pattern is not None)
    choice = choose(groups, by_pattern=pattern is not None)
    series = Series(
        str(place), choice.group.layout, choice.group.checkpoints, None, 0, choice.notes
    ).noting(*left_out)
    if series.layout == "subfolders":
        series = series.noting(*_faults(place, folders, set(series.steps)))
    return _with_ends(series, seen, cache_dir)


def _overview(place: HubReference) -> Overview:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(place.repo)
    except HFValidationError as error:
        raise RelexError(
            f"{place} is no folder on this disk and no name of a Hub repo, which is namespace/name "
            f"({str(error).partition(chr(10))[0]})"
        ) from error
    api, repo, revision = HfApi(), place.repo, place.revision
    with _also_here(place), reading(repo, revision), ThreadPoolExecutor(3) as pool:
        refs = pool.submit(patiently, lambda: api.list_repo_refs(repo)) if not revision else None
        info = pool.submit(
            patiently, lambda: api.model_info(repo, revision=revision, files_metadata=True)
        )
        commits = pool.submit(patiently, lambda: api.list_repo_commits(repo, revision=revision))
        return Overview(place, refs.result() if refs else None, info.result(), commits.result())


@contextmanager
def _also_here(place: HubReference) -> Iterator[None]:
    """What is not on the Hub may have been meant for a folder here."""
    try:
        yield
    except RelexError as error:
        raise no_such(place, error) from error


def _with_ends(series: Series, seen: Overview, cache_dir: str | None) -> Series:
    """The series with what its first and last checkpoint say: kind, base, where the run ended."""
    first, last = series.checkpoints[0], series.checkpoints[-1]
    files = seen.info.siblings if series.layout == "subfolders" else None
    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(lambda c: detail_of(c, files), (first, last)))
    known = {end.checkpoint.step: end.checkpoint for end in ends}
    kinds = {end.checkpoint.kind for end in ends if end.whole}
    if len(kinds) == 1:  # what is not looked into is taken to be as the ends are
        kind = kinds.pop()
        series = replace(
            series, checkpoints=tuple(replace(c, kind=kind) for c in series.checkpoints)
        )
    series = replace(series, checkpoints=tuple(known.get(c.step, c) for c in series.checkpoints))
    labelled = [
        *_said_by(ends[0], cache_dir),
        (f"the model card of {seen.place.repo}", card_of(seen.info)),
    ]
    base, remarks = propose(labelled, own=[seen.place.repo])
    return replace(
        series,
        base=or_step_zero(base, series.checkpoints),
        last_step=_last_step(ends[1], cache_dir),
    ).noting(*remarks)


def _said_by(end: Detail, cache_dir: str | None) -> list[tuple[str, configs.Json]]:
    file = configs.config_name(end.checkpoint.kind)
    return [
        (f"{file} of {end.checkpoint.reference}", json_of(end, file, cache_dir)),
        (f"the model card of {end.checkpoint.reference}", end.card),
    ]


def _last_step(end: Detail, cache_dir: str | None) -> int:
    state = json_of(end, TRAINER_STATE, cache_dir)
    said = [state.get(key) for key in ("max_steps", "global_step")]
    return max([end.checkpoint.step, *(step for step in said if isinstance(step, int))])


def _faults(place: HubReference, folders: Subfolders, steps: set[int]) -> list[str]:
    """Notes on folders that were left out."""
    faulty = [f for f, step in folders.faulty.items() if step not in steps]
    notes = [f"{f} was left out: it has no weights" for f in faulty if f not in folders.shards]
    if set(faulty) & set(folders.shards):
        notes.append(_conversion(place, sorted(set(faulty) & set(folders.shards))))
    return notes


def _conversion(place: HubReference, shards: Sequence[str]) -> str:
    """FSDP shards can be converted once they are here."""
    return (
        f"verl left FSDP shards only in {', '.join(shards[:_SHOWN])}; fetch and convert them, each "
        f"with\n  hf download {place.repo} --include '{shards[0]}/*' --local-dir run\n"
        f"  python -m verl.model_merger merge --backend fsdp --local_dir run/{shards[0]} "
        f"--target_dir run/{shards[0]}/huggingface"
    )


def _nothing(seen: Overview, folders: Subfolders, pattern: str | None) -> str:
    """What was looked for and what is there."""
    place = seen.place
    if folders.shards:
        return f"{place}: no checkpoint that can be read; {_conversion(place, folders.shards)}"
    if folders.faulty:
        names = ", ".join(list(folders.faulty)[:_SHOWN])
        return f"{place}: no checkpoint with weights; these folders have none: {names}"
    looked = (
        f"what {pattern!r} finds"
        if pattern
        else "step_N, checkpoint-N, global_step_N, ckpt/N and the like"
    )
    refs = seen.refs
    there = [
        ("branches", [ref.name for ref in refs.branches] if refs else []),
        ("tags", [ref.name for ref in refs.tags] if refs else []),
        ("folders", sorted({f.partition("/")[0] for f in seen.sizes if "/" in f})),
        ("commits", [f'"{commit.title}"' for commit in seen.commits]),
    ]
    listed = "; ".join(f"{what} {_some(names)}" for what, names in there if names)
    where = "branches, tags, folders and titles of commits" if refs else "folders and commits"
    return f"no checkpoints in {place}: looked for {looked} among {where}; there is: {listed}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
