"""Checkpoints in a Hub repo: branches, tags, folders of one revision, commits on a branch.

Three requests see them all (a list of commits has pages): refs, the files of the revision, and its
history. Only the ends of the series are looked into here; hub_details does it for the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from relex_merge.checkpoints.base_model import or_step_zero, propose
from relex_merge.checkpoints.configs import config_name
from relex_merge.checkpoints.grouping import choose, grouped
from relex_merge.checkpoints.hub_details import (
    Detail,
    card_of,
    config_of,
    detail_of,
    trainer_state_of,
)
from relex_merge.checkpoints.hub_layouts import (
    OUR_OUTPUTS,
    Subfolders,
    from_commits,
    from_refs,
    from_subfolders,
)
from relex_merge.checkpoints.json_files import Json
from relex_merge.checkpoints.notes import left_out, nothing_found, packed_series
from relex_merge.checkpoints.series import NothingFoundError, Series, end_of_run
from relex_merge.checkpoints.steps import compile_pattern
from relex_merge.errors import RelexError
from relex_merge.formatting import some
from relex_merge.hub.download import reading
from relex_merge.hub.errors import patiently
from relex_merge.hub.references import HubReference, no_such

if TYPE_CHECKING:
    from huggingface_hub import GitCommitInfo, GitRefs, ModelInfo


@dataclass(frozen=True)
class Overview:
    """What there is in a repo; no refs when one revision was asked for."""

    place: HubReference
    refs: GitRefs | None
    info: ModelInfo
    commits: Sequence[GitCommitInfo]

    @property
    def sizes(self) -> dict[str, int | None]:
        """Path → bytes (None where the server does not say), of every file of the revision."""
        return {file.rfilename: file.size for file in self.info.siblings or ()}


def find_on_hub(place: HubReference, pattern: str | None, cache_dir: str | None = None) -> Series:
    """Find the series in a repo, or in one revision of it.

    Args:
        place: the repo.
        pattern: as for :func:`relex_merge.checkpoints.find.find`.
        cache_dir: the Hub's cache.

    Raises:
        NothingFoundError: there is none; the message says what was looked for and what is there.
        RelexError: the pattern is not usable, or the Hub refuses.
    """
    compiled = compile_pattern(pattern)
    seen = _overview(place)
    folders = from_subfolders(place, str(seen.info.sha), seen.sizes, compiled)
    candidates = list(folders.found)
    notes: list[str] = []
    if seen.refs is not None:
        candidates += from_refs(place.repo, "branches", seen.refs.branches, compiled)
        candidates += from_refs(place.repo, "tags", seen.refs.tags, compiled)
        ours = [r.name for r in seen.refs.branches if r.name.startswith(OUR_OUTPUTS)]
        notes += [f"left out, since they are extrapolations: {', '.join(ours)}"] if ours else []
    if not place.folder:
        candidates += from_commits(place.repo, seen.commits, compiled)
    if not candidates:
        raise NothingFoundError(_nothing(seen, folders, pattern))
    groups = grouped(candidates, by_pattern=pattern is not None)
    choice = choose(groups, by_pattern=pattern is not None)
    taken = choice.group.checkpoints
    if choice.group.layout == "subfolders":
        steps = {c.step for c in taken}
        faulty = [folder for step, folder in folders.faulty if step not in steps]
        notes += left_out(faulty, place)
    series = Series(str(place), choice.group.layout, taken, None, 0, (*choice.notes, *notes))
    return _with_ends(series, seen, cache_dir)


def _overview(place: HubReference) -> Overview:
    from huggingface_hub import HfApi

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
    """Say of what is not on the Hub that it may have been meant for a folder here."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except RelexError as error:
        if isinstance(error.__cause__, HFValidationError):
            raise RelexError(
                f"{place} is no folder on this disk and no name of a Hub repo, which is "
                f"namespace/name ({str(error.__cause__).partition(chr(10))[0]})"
            ) from error
        if place.folder:
            raise no_such(place, error) from error
        raise


def _with_ends(series: Series, seen: Overview, cache_dir: str | None) -> Series:
    """Return the series with what its ends say: the kind, the base, and where the run ended."""
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
        last_step=end_of_run(last.step, [trainer_state_of(ends[1], cache_dir)]),
    ).noting(*remarks)


def _said_by(end: Detail, cache_dir: str | None) -> list[tuple[str, Json]]:
    """Return what configuration and card of a checkpoint say, each with where it stands."""
    reference = end.checkpoint.reference
    return [
        (f"{config_name(end.checkpoint.kind)} of {reference}", config_of(end, cache_dir)),
        (f"the model card of {reference}", end.card),
    ]


def _nothing(seen: Overview, folders: Subfolders, pattern: str | None) -> str:
    """Say what was looked for and what is there."""
    place, refs = seen.place, seen.refs
    if not folders.faulty and (packed := packed_series(str(place), seen.sizes)):
        return packed
    looked = (
        f"what {pattern!r} finds"
        if pattern
        else "step_N, checkpoint-N, global_step_N, ckpt/N and the like"
    )
    there = [
        ("branches", [ref.name for ref in refs.branches] if refs else []),
        ("tags", [ref.name for ref in refs.tags] if refs else []),
        ("folders", sorted({f.partition("/")[0] for f in seen.sizes if "/" in f})),
        ("commits", [f'"{commit.title}"' for commit in seen.commits]),
    ]
    listed = "; ".join(f"{what} {some(names)}" for what, names in there if names)
    where = "branches, tags, folders and titles of commits" if refs else "folders and commits"
    return nothing_found(
        str(place),
        [folder for _, folder in folders.faulty],
        f"looked for {looked} among {where}; there is: {listed}",
        place,
    )
