"""A repo that is pushed to: whether it is there, who may write to it, and what it holds."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import constants

from relex_merge.errors import RelexError
from relex_merge.hub.contact import reach
from relex_merge.hub.errors import TOKEN_HELP, patiently

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MAIN: str = constants.DEFAULT_REVISION


@dataclass(frozen=True)
class Standing:
    """What a repo holds.

    Attributes:
        branches: branch → the sha that it points at.
        tags: names of tags.
        history: shas of the commits of ``main``.
    """

    branches: Mapping[str, str]
    tags: Set[str]
    history: Set[str]

    def committed(self, branch: str) -> bool:
        """Tell whether a branch is there and has a commit of its own.

        One at a commit of ``main`` was made by a push that was killed before it committed.
        """
        return branch in self.branches and self.branches[branch] not in self.history


def standing(api: HfApi, repo: str) -> Standing:
    """Look at the branches and tags of a repo, and at the history of its ``main``."""
    branches, tags = heads(api, repo)
    return Standing(branches, tags, history(api, repo))


def heads(api: HfApi, repo: str) -> tuple[dict[str, str], set[str]]:
    """Return the branches of a repo, each with the sha that it points at, and its tags."""
    refs = patiently(lambda: api.list_repo_refs(repo))
    return {b.name: b.target_commit for b in refs.branches}, {tag.name for tag in refs.tags}


def card_of(api: HfApi, repo: str, commit: str) -> str | None:
    """Return the README.md of a commit; None where it has none."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    name = constants.REPOCARD_NAME
    try:
        path = patiently(lambda: api.hf_hub_download(repo, name, revision=commit))
    except LocalEntryNotFoundError:  # it could not be asked for
        raise
    except EntryNotFoundError:
        return None
    return Path(path).read_text(encoding="utf-8", errors="replace")


def history(api: HfApi, repo: str) -> set[str]:
    """Return the shas of the commits of ``main``."""
    commits = patiently(lambda: api.list_repo_commits(repo, revision=MAIN))
    return {commit.commit_id for commit in commits}


def writing_api(repo: str, token: str | None) -> HfApi:
    """Return the client to write to a repo with.

    Args:
        repo: repo id, for the message.
        token: access token; None takes the one that ``huggingface_hub`` finds.

    Raises:
        RelexError: there is none.
    """
    from huggingface_hub import HfApi, get_token

    token = token or get_token()
    if token is None:
        raise RelexError(f"{repo}: publishing needs an access token; {TOKEN_HELP}")
    return HfApi(token=token, library_name="relex-merge")


def ensure_repo(api: HfApi, repo: str, private: bool) -> None:
    """Create a repo if there is none.

    Args:
        api: the client, with a token.
        repo: repo id.
        private: whether it must be private.

    Raises:
        RelexError: it has no namespace, or is public although ``private`` is asked for.
    """
    if not exists(api, repo, private):
        # None leaves it to the namespace's own default, which may be private as well
        patiently(lambda: api.create_repo(repo, private=private or None, exist_ok=True))


def exists(api: HfApi, repo: str, private: bool) -> bool:
    """Tell whether a repo is there; arguments and errors as for :func:`ensure_repo`."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if "/" not in repo:
        raise RelexError(f"{repo!r} lacks the user or organization; write namespace/{repo}")
    reach(repo)
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT  # by default a request has none
    try:
        info = patiently(lambda: api.model_info(repo, timeout=timeout))
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return False
    if private and not info.private:
        raise RelexError(
            f"{repo} is a public repo, so a private push to it is not possible; make it private "
            "in its settings, or choose another repo"
        )
    return True


def check_may_write(api: HfApi, repo: str, create_pr: bool = False) -> None:
    """Ask whether the token may write to a repo that is there; nothing is changed.

    Args:
        api: the client, with a token.
        repo: repo id.
        create_pr: whether a pull request is enough.

    Raises:
        HfHubHTTPError: it may not.
    """
    from huggingface_hub import CommitOperationAdd

    # What is asked before an upload needs write permission; of so small a file nothing is uploaded.
    probe = [CommitOperationAdd(constants.REPOCARD_NAME, b"")]
    patiently(lambda: api.preupload_lfs_files(repo, probe, create_pr=create_pr))


def check_may_create(api: HfApi, repo: str) -> None:
    """Ask whether the token may create a repo; nothing is changed.

    What a fine-grained token may do is known only when it is used, so such a one passes.

    Args:
        api: the client, with a token.
        repo: repo id.

    Raises:
        RelexError: it may not.
    """
    who = patiently(api.whoami)
    name = who["name"]
    namespaces = {name, *(org["name"] for org in who.get("orgs") or ())}
    role = ((who.get("auth") or {}).get("accessToken") or {}).get("role")
    namespace = repo.partition("/")[0]
    if role == "read":
        raise RelexError(
            f"{repo} does not exist, and this token may not write; use one with write access "
            f"(https://huggingface.co/settings/tokens) and {TOKEN_HELP}"
        )
    if role == "write" and namespace not in namespaces:
        raise RelexError(
            f"{repo} does not exist, and {name} cannot create it: {namespace} is another user, or "
            f"an organization that {name} is no member of; check the name, or {TOKEN_HELP}"
        )
