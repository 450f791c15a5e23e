"""One commit that makes a revision hold exactly an output, and what to do when it fails.

The commit names the one it expects below it, so that the Hub refuses it when the branch has changed
in the meantime, instead of overwriting that; and a commit whose answer got lost is found again
instead of made twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relex_merge.errors import RelexError
from relex_merge.hub.errors import BUSY, patiently, status_of
from relex_merge.hub.repo import MAIN, heads

if TYPE_CHECKING:
    from huggingface_hub import (
        CommitInfo,
        CommitOperationAdd,
        CommitOperationCopy,
        CommitOperationDelete,
        HfApi,
        RepoFile,
    )

# What decides about large file storage on the Hub; every other file of a revision is replaced.
KEPT = ".gitattributes"
# Answers after which nothing was committed for sure.
_REFUSALS = frozenset(range(400, 500)) - {408, 412}


@dataclass(frozen=True)
class Target:
    """Where a commit goes.

    Attributes:
        branch: the branch that is committed on.
        start: the branch that it is made from; itself, when it is there already.
        parent: the sha that ``start`` pointed at when the push began.
    """

    branch: str
    start: str
    parent: str

    @property
    def is_new(self) -> bool:
        """Whether the branch is still to be made."""
        return self.branch != self.start


def commit_on_branch(
    api: HfApi,
    repo: str,
    target: Target,
    additions: Sequence[CommitOperationAdd],
    message: str,
) -> str:
    """Make the branch, if it is new, and the one commit on it.

    Whatever stops it, a branch that it made and that nothing was committed on is gone after.

    Args:
        api: the client, with a token.
        repo: repo id.
        target: where the commit goes.
        additions: the output, its large files uploaded.
        message: title of the commit.

    Returns:
        The sha of the commit.
    """
    operations = _operations(api, repo, target, additions)

    def commit() -> str:
        try:
            info = api.create_commit(
                repo,
                operations,
                commit_message=message,
                revision=target.branch,
                parent_commit=target.parent,
            )
        except Exception as error:
            if (status_of(error) or 0) in _REFUSALS:
                raise
            # The answer may have been lost on the way back: then the branch holds the output, and
            # a repeated commit is refused with 412, since its parent is not the head any more.
            head = heads(api, repo)[0].get(target.branch)
            if head is None or not holds(api, repo, head, additions):
                raise
            return head
        return info.oid

    try:
        if target.is_new:
            patiently(lambda: _create_branch(api, repo, target))
        return patiently(commit)
    except BaseException:
        if target.is_new:
            _withdraw(api, repo, target)
        raise


def _create_branch(api: HfApi, repo: str, target: Target) -> None:
    """Create the branch; that it is there already is fine where an earlier answer was lost."""
    try:
        api.create_branch(repo, branch=target.branch, revision=target.parent)
    except Exception:
        if heads(api, repo)[0].get(target.branch) != target.parent:
            raise


def _withdraw(api: HfApi, repo: str, target: Target) -> None:
    """Delete the branch again, as long as nothing was committed on it.

    Tried once, and a failure passed over: the one that led here is to be reported, without delay,
    and the next push takes over what is left.
    """
    with contextlib.suppress(Exception):
        branches = {b.name: b.target_commit for b in api.list_repo_refs(repo).branches}
        if branches.get(target.branch) == target.parent:
            api.delete_branch(repo, branch=target.branch)


def holds(api: HfApi, repo: str, commit: str, additions: Sequence[CommitOperationAdd]) -> bool:
    """Tell whether a commit holds exactly the output, by names, sizes and hashes.

    The hash is the sha256 for what is in large file storage, git's own for the rest.

    Args:
        api: the client.
        repo: repo id.
        commit: sha.
        additions: the output.
    """
    from huggingface_hub import RepoFile

    tree = patiently(lambda: list(api.list_repo_tree(repo, recursive=True, revision=commit)))
    there = {
        entry.path: entry for entry in tree if isinstance(entry, RepoFile) and entry.path != KEPT
    }
    return there.keys() == {addition.path_in_repo for addition in additions} and all(
        _same(there[addition.path_in_repo], addition) for addition in additions
    )


def _same(file: RepoFile, addition: CommitOperationAdd) -> bool:
    from huggingface_hub.utils.sha import git_hash

    if file.size != addition.upload_info.size:
        return False
    if file.lfs is not None:
        return bool(file.lfs.sha256 == addition.upload_info.sha256.hex())
    with addition.as_file() as content:
        return bool(file.blob_id == git_hash(content.read()))


def propose(
    api: HfApi,
    repo: str,
    target: Target,
    additions: Sequence[CommitOperationAdd],
    message: str,
) -> CommitInfo:
    """Open a pull request against the branch with the one commit.

    Args:
        api: the client, with a token.
        repo: repo id.
        target: where the commit would go.
        additions: the output, its large files uploaded.
        message: title of the pull request.

    Returns:
        What the client knows of it: its address, its revision, and the sha of the commit.

    Raises:
        RelexError: the branch holds exactly the output already.
    """
    operations = _operations(api, repo, target, additions)
    # Any other failure may have opened it all the same, and a second one would be a nuisance.
    info = patiently(
        lambda: api.create_commit(
            repo,
            operations,
            commit_message=message,
            revision=target.branch,
            parent_commit=target.parent,
            create_pr=True,
        ),
        transient=frozenset({BUSY}),
    )
    if info.pr_url is None or info.pr_revision is None:
        raise RelexError(f"{repo}: {MAIN} holds exactly this output already; nothing to propose")
    return info


def _operations(
    api: HfApi, repo: str, target: Target, additions: Sequence[CommitOperationAdd]
) -> list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete]:
    """Return the commit's operations: everything at ``target`` that is no part of it goes."""
    from huggingface_hub import CommitOperationDelete

    kept = {KEPT, *(addition.path_in_repo for addition in additions)}
    there = patiently(lambda: api.list_repo_files(repo, revision=target.parent))
    stale = [CommitOperationDelete(name, is_folder=False) for name in there if name not in kept]
    return [*stale, *additions]


# A .gitignore of the repo must not take files out of the model; it goes with the other files.
_IGNORE_NOTHING = "# every file of the output is part of the model\n"


def upload(
    api: HfApi,
    repo: str,
    target: Target,
    additions: Sequence[CommitOperationAdd],
    create_pr: bool = False,
) -> None:
    """Upload the large files among ``additions``; none of them twice.

    Args:
        api: the client, with a token.
        repo: repo id.
        target: where the commit will go.
        additions: the output.
        create_pr: whether the commit will be a pull request.

    Raises:
        RelexError: the revision that they go to has changed meanwhile.
    """
    # The answers say which files the revision holds already, and the commit leaves those out: so
    # they must be about the branch that the commit is made on, and still be true by then.
    patiently(
        lambda: api.preupload_lfs_files(
            repo,
            additions,
            revision=target.start,
            create_pr=create_pr,
            free_memory=False,
            gitignore_content=_IGNORE_NOTHING,
        )
    )
    if heads(api, repo)[0].get(target.start) != target.parent:
        raise RelexError(
            f"{repo}: {target.start} has changed during the upload; repeat the command, files that "
            "were uploaded are not sent again"
        )
