"""Checkpoints of one run onto one Hub repo: a revision and a commit for each, a card on ``main``.

Opening the repo asks for everything that can be refused, before anything is hashed or uploaded. A
revision that is there already is compared by its hashes: the same content is left alone, other
content is refused, and a branch that an interrupted run made without a commit gets it now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal, TypeAlias

from relex_merge.checkpoints.complete import why_not_whole
from relex_merge.checkpoints.files import CARD
from relex_merge.checkpoints.series import Checkpoint
from relex_merge.checkpoints.sharded import require_sharded
from relex_merge.errors import RelexError
from relex_merge.hub.commit import Target, commit_on_branch, holds, upload
from relex_merge.hub.download import progress_bars
from relex_merge.hub.errors import hub_errors, patiently
from relex_merge.hub.references import hub_id
from relex_merge.hub.repo import (
    MAIN,
    Standing,
    card_of,
    check_may_write,
    ensure_repo,
    heads,
    standing,
    writing_api,
)
from relex_merge.publishing.converted import convert
from relex_merge.publishing.payload import contents
from relex_merge.publishing.revision_names import RevisionFormat
from relex_merge.publishing.series_card import MARK, Published, series_card
from relex_merge.report.front_matter import License, base_license

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

State: TypeAlias = Literal["missing", "complete", "other"]


@dataclass(frozen=True)
class RunFacts:
    """What is known of a training run beside its checkpoints.

    Attributes:
        base: reference of the model that the run started from, None where it is not known.
        adapter: whether the checkpoints are LoRA adapters.
        last_step: where the run ends, 0 where that is not known.
    """

    base: str | None = None
    adapter: bool = False
    last_step: int = 0


class SeriesPublisher:
    """Publishes into one repo; made by :meth:`open`.

    Attributes:
        repo: repo id.
        format: names of the revisions.
    """

    def __init__(
        self, api: HfApi, repo: str, format: RevisionFormat, *, dtype: str | None, quiet: bool
    ) -> None:
        self.repo = repo
        self._dtype = dtype
        self.format = format
        self._api = api
        self._quiet = quiet
        self._hashed: dict[tuple[str, str | None], list[CommitOperationAdd]] = {}

    @classmethod
    def open(
        cls,
        repo: str,
        format: RevisionFormat,
        *,
        private: bool = False,
        token: str | None = None,
        dtype: str | None = None,
        quiet: bool = False,
    ) -> SeriesPublisher:
        """Find or create the repo, and ask whether this token may write to it.

        Args:
            repo: repo id.
            format: names of the revisions.
            private: whether a new repo is private.
            token: access token; by default the one that ``huggingface_hub`` finds.
            dtype: of the weights that are published; by default as they are stored.
            quiet: no progress bars.

        Raises:
            RelexError: the name is none, or the Hub refuses repo or token.
        """
        publisher = cls(writing_api(repo, token), repo, format, dtype=dtype, quiet=quiet)
        with publisher._asking() as api:
            ensure_repo(api, repo, private)
            check_may_write(api, repo)
        return publisher

    def look(self) -> Standing:
        """Return what the repo holds now."""
        with self._asking() as api:
            return standing(api, self.repo)

    def is_missing(self, step: int, there: Standing) -> bool:
        """Tell whether the revision of a step is still to be made.

        Args:
            step: of a checkpoint.
            there: what the repo holds.

        Raises:
            RelexError: the revision is a tag.
        """
        revision = self.format.name(step)
        if revision in there.tags:
            raise RelexError(
                f"{self.repo} has a tag {revision}, and a tag is never moved; choose another "
                "--revision-format, or delete the tag"
            )
        return not there.committed(revision)

    def state(self, checkpoint: Checkpoint, base: str | None, there: Standing) -> State:
        """Tell whether the revision of a checkpoint is there, with this content or another one.

        Args:
            checkpoint: a local one.
            base: the model that the run started from.
            there: what the repo holds.

        Raises:
            RelexError: the revision is a tag.
        """
        if self.is_missing(checkpoint.step, there):
            return "missing"
        sha = there.branches[self.format.name(checkpoint.step)]
        with self._asking() as api, self._additions(checkpoint, base) as additions:
            same = holds(api, self.repo, sha, additions)
        return "complete" if same else "other"

    def publish(
        self,
        checkpoint: Checkpoint,
        base: str | None,
        unchanged: Callable[[Checkpoint], bool] = lambda _: True,
    ) -> bool:
        """Make one commit on the checkpoint's revision, which :meth:`state` has called missing.

        Args:
            checkpoint: a local one.
            base: the model that the run started from.
            unchanged: asked after the upload and before the commit; False: nothing is committed.

        Returns:
            Whether it was committed.
        """
        revision = self.format.name(checkpoint.step)
        with self._asking() as api, self._additions(checkpoint, base) as additions:
            branches, _ = heads(api, self.repo)
            start = revision if revision in branches else MAIN
            target = Target(revision, start, branches[start])
            upload(api, self.repo, target, additions)
            if not unchanged(checkpoint):
                self.forget(checkpoint)
                return False
            message = f"Step {checkpoint.step}, with relex-merge"
            commit_on_branch(api, self.repo, target, additions, message)
        return True

    def forget(self, checkpoint: Checkpoint) -> None:
        """Hash the files of a checkpoint anew when it is asked for again."""
        for key in [key for key in self._hashed if key[0] == checkpoint.reference]:
            del self._hashed[key]

    def write_card(self, run: RunFacts) -> bool:
        """Bring the card on ``main`` up to date; False when the one there is not ours."""
        from huggingface_hub import CommitOperationAdd

        there = self.look()
        steps = [self.format.step(name) for name in there.branches if there.committed(name)]
        known = sorted(step for step in steps if step is not None)
        with self._asking() as api:
            old = card_of(api, self.repo, there.branches[MAIN])
            if old is not None and MARK not in old:
                return False
            card = self._render(api, known, run) if known else None
            if card is None or card == old:
                return True
            addition = CommitOperationAdd(CARD, card.encode())
            patiently(
                lambda: api.create_commit(
                    self.repo,
                    [addition],
                    commit_message=f"Card of {len(known)} checkpoints, with relex-merge",
                    revision=MAIN,
                )
            )
        return True

    def url(self, step: int | None = None) -> str:
        """Return the page of the repo, or of a step's revision."""
        page = f"{self._api.endpoint}/{self.repo}"
        return page if step is None else f"{page}/tree/{self.format.name(step)}"

    @contextmanager
    def _asking(self) -> Iterator[HfApi]:
        with progress_bars(not self._quiet), hub_errors(self.repo, str(self._api.token)):
            yield self._api

    @contextmanager
    def _additions(
        self, checkpoint: Checkpoint, base: str | None
    ) -> Iterator[list[CommitOperationAdd]]:
        """Yield what the commit adds. Making it hashes every file, so it is made once.

        What is converted before it is published lies in a temporary folder meanwhile, and is made
        anew when it is asked for again: the disk holds one checkpoint more at any time.
        """
        folder, key = Path(checkpoint.reference), (checkpoint.reference, base)
        if self._dtype is not None or require_sharded(folder, str(folder)) is not None:
            with TemporaryDirectory(prefix="relex-") as place:
                convert(folder, Path(place), dtype=self._dtype, base=base)
                yield self._operations(Path(place), checkpoint.step, base)
            return
        if key not in self._hashed:
            self._hashed[key] = self._operations(folder, checkpoint.step, base)
        yield self._hashed[key]

    def _operations(self, folder: Path, step: int, base: str | None) -> list[CommitOperationAdd]:
        from huggingface_hub import CommitOperationAdd
        from tqdm import tqdm

        files = sorted(contents(folder, self.repo, base).items())
        hashing = tqdm(files, f"hashing step {step}", leave=False, disable=self._quiet)
        return [CommitOperationAdd(name, content) for name, content in hashing]

    def _render(self, api: HfApi, steps: Sequence[int], run: RunFacts) -> str:
        return series_card(
            Published(
                self.repo,
                self.format,
                tuple(steps),
                run.base if run.base and hub_id(run.base) else None,
                run.adapter,
                run.last_step,
                _license_of(api, run.base),
            )
        )


def _license_of(api: HfApi, base: str | None) -> License | None:
    """Return what the base's own card says; None when there is none to be had."""
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    if base is None:
        return None
    repo = hub_id(base)
    if repo is None or Path(base).is_dir():
        return base_license(Path(base) / CARD)
    try:
        return base_license(Path(patiently(lambda: api.hf_hub_download(repo, CARD))))
    except (EntryNotFoundError, RepositoryNotFoundError):
        return None


Notify = Callable[[str], None]


class RefusedError(RelexError):
    """A revision is there already, with other content."""


def publish_all(
    publisher: SeriesPublisher,
    checkpoints: Sequence[Checkpoint],
    base: str | None,
    notify: Notify,
    unchanged: Callable[[Checkpoint], bool] = lambda _: True,
) -> tuple[list[int], list[int]]:
    """Publish every checkpoint that is not there yet.

    Args:
        publisher: of the repo.
        checkpoints: local ones.
        base: the model that the run started from.
        notify: called with a remark on each.
        unchanged: asked between upload and commit; where it says False nothing is committed.

    Returns:
        Steps that were published, steps that were there before.

    Raises:
        RefusedError: a revision holds other content; nothing was uploaded.
    """
    there = publisher.look()
    states = {c.step: publisher.state(c, base, there) for c in checkpoints}
    _refuse(publisher, [step for step, state in states.items() if state == "other"])
    before = [step for step, state in states.items() if state == "complete"]
    for step in before:
        notify(f"{publisher.format.name(step)} is complete already")
    published = []
    for checkpoint in checkpoints:
        if states[checkpoint.step] != "missing":
            continue
        if publisher.publish(checkpoint, base, unchanged):
            published.append(checkpoint.step)
            notify(f"published {publisher.url(checkpoint.step)}")
    return published, before


def _refuse(publisher: SeriesPublisher, steps: Sequence[int]) -> None:
    if not steps:
        return
    names = ", ".join(publisher.format.name(step) for step in steps[:6])
    more = f" and {len(steps) - 6} more" if len(steps) > 6 else ""
    first = publisher.format.name(steps[0])
    raise RefusedError(
        f"{publisher.repo} has {names}{more} with other content, so nothing was uploaded; publish "
        "under other names with --revision-format, leave the steps out with --observe, or delete "
        f"the revision first: hf repos branch delete {publisher.repo} {first}"
    )


def check_whole(checkpoints: Sequence[Checkpoint]) -> None:
    """Raise RelexError for a checkpoint that is not complete, or is being written."""
    for checkpoint in checkpoints:
        folder = Path(checkpoint.reference)
        fault = why_not_whole(folder)
        if fault:
            raise RelexError(
                f"{folder} is not whole: {fault}; if it is being written, wait or add --watch, "
                "else remove it or leave the step out with --observe"
            )
