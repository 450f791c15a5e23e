"""Checkpoints of one run onto one Hub repo: a revision and a commit for each, a card on ``main``.

Opening the repo asks for everything that can be refused, before anything is hashed or uploaded. A
revision that is there already is compared by its hashes: the same content is left alone, other
content is refused, and a branch that an interrupted run made without a commit gets it now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from relex_merge.checkpoints.complete import missing_part, weights_of
from relex_merge.checkpoints.files import CARD
from relex_merge.checkpoints.series import Checkpoint
from relex_merge.errors import RelexError
from relex_merge.hub.commit import MAIN, Target, commit_on_branch, ensure_repo, heads, holds, upload
from relex_merge.hub.download import progress_bars
from relex_merge.hub.errors import TOKEN_HELP, hub_errors, patiently
from relex_merge.hub.references import hub_id
from relex_merge.publishing.payload import contents
from relex_merge.publishing.revision_names import RevisionFormat
from relex_merge.publishing.series_card import MARK, Published, series_card
from relex_merge.report.front_matter import License, base_license

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

State: TypeAlias = Literal["missing", "complete", "other"]


@dataclass(frozen=True)
class Standing:
    """Branches with the sha each points at, tags, and the commits of ``main``."""

    branches: Mapping[str, str]
    tags: Set[str]
    history: Set[str]

    def committed(self, branch: str) -> bool:
        """Whether a branch is there and has a commit of its own.

        One at a commit of ``main`` was made by a run that was killed before it committed.
        """
        return branch in self.branches and self.branches[branch] not in self.history


@dataclass
class SeriesPublisher:
    """Publishes into one repo. Call :meth:`open` first.

    repo: repo id; format: names of the revisions; base: reference of the model that the run started
    from, as far as it is known; last_step: where the run ends.
    """

    repo: str
    format: RevisionFormat
    base: str | None = None
    private: bool = False
    token: str | None = None
    quiet: bool = False
    adapter: bool = False
    last_step: int = 0
    _hashed: dict[str, list[CommitOperationAdd]] = field(default_factory=dict, repr=False)
    _api: HfApi | None = None

    def open(self) -> None:
        """Find or create the repo, and ask whether this token may write to it.

        Raises RelexError when the name is none, or the Hub refuses repo or token.
        """
        from huggingface_hub import CommitOperationAdd, HfApi, get_token

        self.token = self.token or get_token()
        if self.token is None:
            raise RelexError(f"{self.repo}: publishing needs an access token; {TOKEN_HELP}")
        self._api = HfApi(token=self.token, library_name="relex-merge")
        with self._asking() as api:
            ensure_repo(api, self.repo, self.private)
            # What is asked before an upload needs write permission; of so small a file nothing
            # is uploaded.
            probe = [CommitOperationAdd(CARD, b"")]
            patiently(lambda: api.preupload_lfs_files(self.repo, probe))

    def look(self) -> Standing:
        """What the repo holds now."""
        with self._asking() as api:
            branches, tags = heads(api, self.repo)
            commits = patiently(lambda: api.list_repo_commits(self.repo, revision=MAIN))
        return Standing(branches, tags, {commit.commit_id for commit in commits})

    def state(self, checkpoint: Checkpoint, standing: Standing) -> State:
        """Whether the revision of a checkpoint is there, with this content or another one.

        Raises RelexError when it is a tag.
        """
        revision = self.format.name(checkpoint.step)
        if revision in standing.tags:
            raise RelexError(
                f"{self.repo} has a tag {revision}, and a tag is never moved; choose another "
                "--revision-format, or delete the tag"
            )
        if not standing.committed(revision):
            return "missing"
        sha = standing.branches[revision]
        with self._asking() as api:
            same = holds(api, self.repo, sha, self._additions(checkpoint))
        return "complete" if same else "other"

    def publish(
        self, checkpoint: Checkpoint, unchanged: Callable[[Checkpoint], bool] = lambda _: True
    ) -> bool:
        """One commit on the checkpoint's revision, which :meth:`state` has called missing.

        unchanged: asked after the upload and before the commit; False: nothing is committed.
        Returns whether it was committed.
        """
        revision = self.format.name(checkpoint.step)
        with self._asking() as api:
            branches, _ = heads(api, self.repo)
            start = revision if revision in branches else MAIN
            target = Target(revision, start, branches[start])
            additions = self._additions(checkpoint)
            upload(api, self.repo, target, additions)
            if not unchanged(checkpoint):
                self.forget(checkpoint)
                return False
            message = f"Step {checkpoint.step}, with relex-merge"
            commit_on_branch(api, self.repo, target, additions, message)
        return True

    def forget(self, checkpoint: Checkpoint) -> None:
        """Hash the files of a checkpoint anew when it is asked for again."""
        self._hashed.pop(checkpoint.reference, None)

    def write_card(self) -> bool:
        """Bring the card on ``main`` up to date; False when there is one that others wrote."""
        from huggingface_hub import CommitOperationAdd

        standing = self.look()
        steps = [self.format.step(name) for name in standing.branches if standing.committed(name)]
        known = sorted(step for step in steps if step is not None)
        with self._asking() as api:
            there = self._card(api, standing.branches[MAIN])
            if there is not None and MARK not in there:
                return False
            card = self._render(api, known) if known else None
            if card not in (None, there):
                assert card is not None
                patiently(
                    lambda: api.create_commit(
                        self.repo,
                        [CommitOperationAdd(CARD, card.encode())],
                        commit_message=f"Card of {len(known)} checkpoints, with relex-merge",
                        revision=MAIN,
                    )
                )
        return True

    def url(self, step: int | None = None) -> str:
        """Page of the repo, or of a step's revision."""
        assert self._api is not None  # it is open
        page = f"{self._api.endpoint}/{self.repo}"
        return page if step is None else f"{page}/tree/{self.format.name(step)}"

    @contextmanager
    def _asking(self) -> Iterator[HfApi]:
        assert self._api is not None  # it is open
        with progress_bars(not self.quiet), hub_errors(self.repo, self.token):
            yield self._api

    def _additions(self, checkpoint: Checkpoint) -> list[CommitOperationAdd]:
        """What the commit adds. Making it hashes every file, so it is made once."""
        from huggingface_hub import CommitOperationAdd
        from tqdm import tqdm

        key = checkpoint.reference
        if key not in self._hashed:
            files = sorted(contents(Path(key), self.repo, self.base).items())
            hashing = tqdm(
                files, f"hashing step {checkpoint.step}", leave=False, disable=self.quiet
            )
            self._hashed[key] = [CommitOperationAdd(name, content) for name, content in hashing]
        return self._hashed[key]

    def _card(self, api: HfApi, main: str) -> str | None:
        from huggingface_hub.errors import EntryNotFoundError

        try:
            path = patiently(lambda: api.hf_hub_download(self.repo, CARD, revision=main))
        except EntryNotFoundError:
            return None
        return Path(path).read_text(encoding="utf-8")

    def _render(self, api: HfApi, steps: Sequence[int]) -> str:
        return series_card(
            Published(
                self.repo,
                self.format,
                tuple(steps),
                self.base if self.base and hub_id(self.base) else None,
                self.adapter,
                self.last_step,
                self._license_of_base(api),
            )
        )

    def _license_of_base(self, api: HfApi) -> License | None:
        """What the base's own card says; None when there is none to be had."""
        from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

        if self.base is None:
            return None
        base = hub_id(self.base)
        if base is None or Path(self.base).is_dir():
            return base_license(Path(self.base) / CARD)
        try:
            return base_license(Path(patiently(lambda: api.hf_hub_download(base, CARD))))
        except (EntryNotFoundError, RepositoryNotFoundError):
            return None


Notify = Callable[[str], None]


class RefusedError(RelexError):
    """A revision is there already, with other content."""


def publish_all(
    publisher: SeriesPublisher,
    checkpoints: Sequence[Checkpoint],
    notify: Notify,
    unchanged: Callable[[Checkpoint], bool] = lambda _: True,
) -> tuple[list[int], list[int]]:
    """Publish every checkpoint that is not there yet; (steps published, steps there before).

    unchanged: asked between upload and commit; where it says False nothing is committed. Raises
    RefusedError before anything is uploaded when a revision holds other content.
    """
    standing = publisher.look()
    states = {c.step: publisher.state(c, standing) for c in checkpoints}
    _refuse(publisher, [step for step, state in states.items() if state == "other"])
    before = [step for step, state in states.items() if state == "complete"]
    for step in before:
        notify(f"{publisher.format.name(step)} is complete already")
    published = []
    for checkpoint in checkpoints:
        if states[checkpoint.step] == "missing" and publisher.publish(checkpoint, unchanged):
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
        fault = missing_part(folder, weights_of(folder))
        if fault:
            raise RelexError(
                f"{folder} is not whole: {fault}; if it is being written, wait or add --watch, "
                "else remove it or leave the step out with --observe"
            )
