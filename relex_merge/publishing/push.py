"""Publishing a finished output as one revision of a Hub repo.

A push is built so that nobody ever reads half a model, and so that it can simply be repeated:

1. the folder is checked, and the texts that could name local folders are rewritten in memory;
2. the repo is looked up, or created, and the revision is refused if it exists, unless it has no
   commit of its own: then a push that was killed left it, and it is taken over;
3. the large files are uploaded. The first request of this step is the first one that needs write
   permission, and the Hub shows none of the files until a commit names them. A repeated push finds
   them there and sends none twice;
4. the branch is created from ``main``, and one commit replaces all it holds by the output. The
   commit names the one it expects below it, so that the Hub refuses it when the branch has
   changed in the meantime. If the commit fails, the branch is deleted again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import yaml

from relex_merge.checkpoints.complete import Finished, check_finished
from relex_merge.checkpoints.files import CARD, REPORT
from relex_merge.checkpoints.hub_layouts import OUR_OUTPUTS
from relex_merge.errors import RelexError, blank_secrets
from relex_merge.formatting import format_step
from relex_merge.hub.commit import Target, commit_on_branch, propose, upload
from relex_merge.hub.download import progress_bars
from relex_merge.hub.errors import hub_errors, patiently
from relex_merge.hub.references import BRANCH
from relex_merge.hub.repo import (
    MAIN,
    check_may_create,
    check_may_write,
    ensure_repo,
    exists,
    heads,
    history,
    writing_api,
)
from relex_merge.publishing.main_card import write_main_card
from relex_merge.publishing.payload import publishable, report_of
from relex_merge.report.front_matter import base_license
from relex_merge.report.snippet import default_revision, loading_snippet

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi


@dataclass(frozen=True)
class PushResult:
    """What was published.

    Attributes:
        url: page of the revision or of the pull request.
        repo: repo id.
        revision: branch, or ``refs/pr/N``.
        commit: sha of the commit that holds the output.
        snippet: Python that loads the model.
        notes: remarks for the user.
    """

    url: str
    repo: str
    revision: str
    commit: str
    snippet: str
    notes: tuple[str, ...] = ()


def push(  # noqa: PLR0913  # a public function: each option is a keyword of its own
    out: str | Path,
    repo: str,
    *,
    revision: str | None = None,
    private: bool = False,
    force: bool = False,
    create_pr: bool = False,
    card: bool = False,
    token: str | None = None,
    quiet: bool = False,
) -> PushResult:
    """Publish a finished output as a revision of a Hub repo, in one commit.

    The revision then holds exactly the output (and ``.gitattributes``); every other revision stays
    as it is, but for a ``main`` without any file, which gets a card that lists the revisions. The
    files at ``out`` are not changed.

    Args:
        out: folder that ``run`` or another merge wrote.
        repo: repo id, ``namespace/name``; created if there is none.
        revision: branch to publish as, by default ``relex-step-<N>``.
        private: whether a new repo is private.
        force: whether an existing branch may be replaced, by a further commit on it.
        create_pr: open a pull request against ``main`` instead.
        card: whether the card that lists the revisions replaces one that ``main`` has.
        token: access token; by default the one that ``huggingface_hub`` finds.
        quiet: no progress bars.

    Returns:
        Where it is, and how to load it.

    Raises:
        RelexError: the output is not finished, the revision exists, or the Hub refuses.
    """
    output = check_finished(Path(out))
    revision = _chosen_revision(output, revision, force, create_pr)
    files = publishable(output, repo, None if create_pr or revision == MAIN else revision)
    api = writing_api(repo, token)
    with progress_bars(not quiet), hub_errors(repo, str(api.token)):
        ensure_repo(api, repo, private)
        target = _target(api, repo, revision, force)
        additions = _upload(api, repo, target, files, create_pr)
        message = _message(output)
        if create_pr:
            info = propose(api, repo, target, additions, message)
            snippet = loading_snippet(repo, info.pr_revision, adapter=output.is_adapter)
            return PushResult(str(info.pr_url), repo, str(info.pr_revision), info.oid, snippet)
        commit = commit_on_branch(api, repo, target, additions, message)
        notes = _card_main(api, repo, target, output, files, replace=card)
    url = f"{api.endpoint}/{repo}/tree/{quote(revision, safe='/')}"
    shown = None if revision == MAIN else revision
    snippet = loading_snippet(repo, shown, adapter=output.is_adapter)
    return PushResult(url, repo, revision, commit, snippet, notes)


def check_target(
    repo: str,
    *,
    revision: str | None = None,
    target_step: float | None = None,
    private: bool = False,
    force: bool = False,
    create_pr: bool = False,
    token: str | None = None,
) -> None:
    """Raise what would refuse a push, before there is anything to push; nothing is changed.

    Args:
        repo: as for :func:`push`, like all that follow but one.
        revision: branch to publish as.
        target_step: what the default revision is called by; None where that is not known yet, and
            then no default revision is looked for.
        private: whether a new repo is private.
        force: whether an existing branch may be replaced.
        create_pr: whether a pull request is opened instead.
        token: access token.

    Raises:
        RelexError: there is no token, it may not write, or the revision exists.
    """
    _check_revision(revision, force, create_pr)
    if revision is None and target_step is not None:
        revision = OUR_OUTPUTS + format_step(target_step)
    api = writing_api(repo, token)
    with hub_errors(repo, str(api.token)):
        if not exists(api, repo, private):
            check_may_create(api, repo)
            return
        check_may_write(api, repo, create_pr)
        if revision is not None and not create_pr:
            _target(api, repo, revision, force)


def _chosen_revision(output: Finished, revision: str | None, force: bool, create_pr: bool) -> str:
    """Return the branch to commit on; ``main`` for a pull request."""
    _check_revision(revision, force, create_pr)
    if create_pr:
        return MAIN
    if revision is not None:
        return revision
    report = report_of(output)
    if report is None:
        raise RelexError(
            f"{output.folder} has no {REPORT} with a target_step, so there is no default "
            "revision; name one with --revision"
        )
    return default_revision(report)


def _check_revision(revision: str | None, force: bool, create_pr: bool) -> None:
    """Raise RelexError for a revision that cannot be asked for."""
    if revision is None:
        return
    if create_pr:
        raise RelexError(
            f"a pull request goes to {MAIN}, not to the revision {revision}; give either "
            "--create-pr or --revision"
        )
    if blank_secrets(revision) != revision:
        raise RelexError(
            "--revision is an access token, which would be published as the name of a branch; "
            "name a revision, and give tokens with `hf auth login` or HF_TOKEN"
        )
    if not BRANCH.fullmatch(revision):
        raise RelexError(f"{revision!r} cannot be the name of a branch; choose another --revision")
    if revision == MAIN and not force:
        raise RelexError(
            f"every repo has a revision {MAIN}; replace it with --force, open a pull request with "
            "--create-pr, or choose another --revision"
        )


def _message(output: Finished) -> str:
    """Return the title of the commit."""
    report = report_of(output)
    if report is None:
        return "Merge with relex-merge"
    return f"Extrapolate to step {format_step(report['target_step'])} with relex-merge"


def _target(api: HfApi, repo: str, revision: str, force: bool) -> Target:
    """Return where the commit goes, an existing revision refused unless ``force`` is given."""
    branches, tags = heads(api, repo)
    if revision in tags:
        raise RelexError(
            f"{repo} has a tag {revision}, and a tag is never moved; choose another --revision, or "
            "delete the tag"
        )
    if revision not in branches:
        return Target(revision, MAIN, branches[MAIN])
    if not force and revision != MAIN and branches[revision] not in history(api, repo):
        raise RelexError(
            f"{repo} has a revision {revision} already. Replace it with --force, choose another "
            "--revision, or open a pull request with --create-pr"
        )
    return Target(revision, revision, branches[revision])


def _upload(
    api: HfApi, repo: str, target: Target, files: dict[str, Path | bytes], create_pr: bool
) -> list[CommitOperationAdd]:
    """Upload the large files, which no revision shows yet; return what the commit adds."""
    from huggingface_hub import CommitOperationAdd

    if isinstance(card := files.get(CARD), bytes):
        check_card(repo, card.decode())  # before the uploads, not after them
    additions = [CommitOperationAdd(name, content) for name, content in sorted(files.items())]
    upload(api, repo, target, additions, create_pr)
    return additions


def _card_main(
    api: HfApi,
    repo: str,
    target: Target,
    output: Finished,
    files: Mapping[str, Path | bytes],
    *,
    replace: bool,
) -> tuple[str, ...]:
    """Give ``main`` its card; the push is done by now, so what goes wrong is a remark."""
    report = report_of(output)
    if report is None or target.branch == MAIN:
        return ()
    own = files.get(CARD)
    try:
        write_main_card(
            api,
            repo,
            target.branch,
            base=report["base"]["reference"],
            adapter=output.is_adapter,
            license=base_license(own.decode() if isinstance(own, bytes) else own),
            replace=replace,
        )
    except Exception as error:
        return (
            f"the model is published, but {MAIN} has no card yet ({blank_secrets(str(error))}); "
            "push again with --force",
        )
    return ()


def check_card(repo: str, card: str) -> None:
    """Ask the Hub's validator about the front matter of a card.

    Args:
        repo: repo id, for the message.
        card: text of the card.

    Raises:
        RelexError: it refuses the card.
    """
    from huggingface_hub import ModelCard
    from huggingface_hub.errors import HfHubHTTPError

    try:
        patiently(lambda: ModelCard(card).validate())
    except HfHubHTTPError:
        raise
    except (TypeError, ValueError, yaml.YAMLError) as error:
        raise RelexError(
            f"{repo}: the Hub does not accept the front matter of {CARD}; correct it and push "
            f"again ({error})"
        ) from error
