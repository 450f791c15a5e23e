"""One commit that makes a revision hold exactly an output, and what to do when it fails.

The commit names the one it expects below it, so that whatever somebody else did in the meantime is
refused by the Hub instead of overwritten; and a commit whose answer got lost is found again instead
of made twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relex_merge.errors import RelexError
from relex_merge.hub.errors import BUSY, patiently, status_of

if TYPE_CHECKING:
    from huggingface_hub import (
        CommitInfo,
        CommitOperationAdd,
        CommitOperationCopy,
        CommitOperationDelete,
        HfApi,
    )
    from huggingface_hub.hf_api import RepoFile

MAIN = "main"
# What decides about large file storage on the Hub; every other file of a revision is replaced.
_KEPT = ".gitattributes"
# Answers after which nothing was committed for sure.
_REFUSALS = frozenset(range(400, 500)) - {408, 412}


@dataclass(frozen=True)
class Target:
    """Where the commit goes: ``branch`` is made from ``start``, or is ``start`` itself.

    ``parent`` is the sha that ``start`` pointed at when the push began.
    """

    branch: str
    start: str
    parent: str

    @property
    def is_new(self) -> bool:
        return self.branch != self.start


def heads(api: HfApi, repo: str) -> tuple[dict[str, str], set[str]]:
    """Branches of ``repo`` with the sha each points at, and its tags."""
    refs = patiently(lambda: api.list_repo_refs(repo))
    return {b.name: b.target_commit for b in refs.branches}, {tag.name for tag in refs.tags}


def commit_on_branch(
    api: HfApi,
    repo: str,
    target: Target,
    additions: Sequence[CommitOperationAdd],
    message: str,
) -> str:
    """Makes the branch, if it is new, and the one commit on it; returns the commit's sha.

    Whatever stops it, a branch that it made and that nothing was committed on is gone after.
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
    """Creates the branch; that it is there already is fine where an earlier answer was lost."""
    try:
        api.create_branch(repo, branch=target.branch, revision=target.parent)
    except Exception:
        if heads(api, repo)[0].get(target.branch) != target.parent:
            raise


def _withdraw(api: HfApi, repo: str, target: Target) -> None:
    """Deletes the branch again, as long as nothing was committed on it; failures are let pass,
    since the failure that led here is the one to report."""
    try:
        if heads(api, repo)[0].get(target.branch) == target.parent:
            patiently(lambda: api.delete_branch(repo, branch=target.branch))
    except Exception:
        return


def holds(api: HfApi, repo: str, commit: str, additions: Sequence[CommitOperationAdd]) -> bool:
    """Whether ``commit`` holds exactly the output, by names, sizes and hashes.

    The hash is the sha256 for what is in large file storage, git's own for the rest.
    """
    from huggingface_hub.hf_api import RepoFile

    there = {
        entry.path: entry
        for entry in api.list_repo_tree(repo, recursive=True, revision=commit)
        if isinstance(entry, RepoFile) and entry.path != _KEPT
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
    """Opens a pull request against the branch with the one commit.

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
    """The commit's operations: everything at ``target`` that is no part of the output goes."""
    from huggingface_hub import CommitOperationDelete

    kept = {_KEPT, *(addition.path_in_repo for addition in additions)}
    there = patiently(lambda: api.list_repo_files(repo, revision=target.parent))
    stale = [CommitOperationDelete(name, is_folder=False) for name in there if name not in kept]
    return [*stale, *additions]


# A .gitignore of the repo must not take files out of the model; it goes with the other files.
_IGNORE_NOTHING = "# every file of the output is part of the model\n"


def ensure_repo(api: HfApi, repo: str, private: bool) -> None:
    """Creates ``repo`` if there is none.

    Raises:
        RelexError: it has no namespace, or is public although ``private`` is asked for.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
    )

    if "/" not in repo:
        raise RelexError(f"{repo!r} lacks the user or organization; write namespace/{repo}")
    try:
        info = patiently(lambda: api.model_info(repo))
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        # None leaves it to the namespace's own default, which may be private as well
        patiently(lambda: api.create_repo(repo, private=private or None, exist_ok=True))
        return
    if private and not info.private:
        raise RelexError(
            f"{repo} is a public repo, so a private push to it is not possible; make it private "
            "in its settings, or choose another repo"
        )


def upload(
    api: HfApi,
    repo: str,
    target: Target,
    additions: Sequence[CommitOperationAdd],
    create_pr: bool = False,
) -> None:
    """Uploads the large files among ``additions``; none of them twice.

    Raises:
        RelexError: the revision that they go to has changed meanwhile.
    """
    # The answers say which files the revision holds already, and the commit leaves those out: so
    # they must be about the branch that the commit is made on, and still be true by then.
    api.preupload_lfs_files(
        repo,
        additions,
        revision=target.start,
        create_pr=create_pr,
        free_memory=False,
        gitignore_content=_IGNORE_NOTHING,
    )
    if heads(api, repo)[0].get(target.start) != target.parent:
        raise RelexError(
            f"{repo}: {target.start} was changed by somebody else during the upload; repeat the "
            "command, files that were uploaded are not sent again"
        )
