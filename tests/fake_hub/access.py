"""Who may do what: tokens, private and gated repos, and the refusals the Hub answers with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.fake_hub.messages import HubError, Request
from tests.fake_hub.store import Repo

if TYPE_CHECKING:
    from tests.fake_hub.server import Hub


@dataclass(frozen=True)
class Token:
    """An access token of a user.

    `orgs` are the organizations whose repos it reaches besides the user's own; None means every
    namespace, () makes the user a stranger to all repos but his own.
    """

    value: str
    role: str = "write"  # or "read"
    user: str = "tester"
    orgs: tuple[str, ...] | None = None

    def belongs_to(self, namespace: str) -> bool:
        return self.orgs is None or namespace == self.user or namespace in self.orgs


def identify(hub: Hub, request: Request) -> Token | None:
    """The token of the request, None for an anonymous one; raises on a token nobody has."""
    if request.token is None:
        return None
    token = hub.tokens.get(request.token)
    if token is None:
        raise HubError(401, "Invalid credentials in Authorization header")
    return token


def repo_not_found(token: Token | None) -> HubError:
    """Anonymous users are told to log in, others that there is no such repo, as on the Hub."""
    if token is None:
        return HubError(401, "Invalid username or password.", "RepoNotFound")
    return HubError(404, "Repository not found", "RepoNotFound")


def visible(hub: Hub, request: Request, repo_id: str) -> Repo:
    """The repo, if the request may know of it. Metadata of a gated repo is open to all."""
    token = identify(hub, request)
    repo = hub.repos.get(repo_id)
    if repo is None or (
        repo.private and not (token is not None and token.belongs_to(repo.namespace))
    ):
        raise repo_not_found(token)
    if repo.disabled:
        raise HubError(403, "Access to this resource is disabled.")
    return repo


def readable(hub: Hub, request: Request, repo_id: str) -> Repo:
    """The repo, if the request may read its files."""
    repo = visible(hub, request, repo_id)
    token = identify(hub, request)
    if repo.gated and not (token is not None and token.belongs_to(repo.namespace)):
        page = f"{hub.url}/{repo.id}"
        if token is None:
            message = (
                f"Access to model {repo.id} is restricted. You must have access to it and be "
                f"authenticated to access it. Please log in."
            )
            raise HubError(401, message, "GatedRepo")
        message = (
            f"Access to model {repo.id} is restricted and you are not in the authorized list. "
            f"Visit {page} to ask for access."
        )
        raise HubError(403, message, "GatedRepo")
    return repo


def writer(hub: Hub, request: Request) -> Token:
    """The token of a request that wants to change something."""
    token = identify(hub, request)
    if token is None:
        raise HubError(401, "Invalid username or password.")
    if token.role != "write":
        message = "Forbidden: you must use a write token to upload to a repository."
        raise HubError(403, message)
    return token


def writable(hub: Hub, request: Request, repo_id: str, pull_request: bool = False) -> Repo:
    """The repo, if the request may change it; anyone with a write token may open a pull request."""
    repo = visible(hub, request, repo_id)
    token = writer(hub, request)
    if not pull_request and not token.belongs_to(repo.namespace):
        raise HubError(
            403,
            "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request",
        )
    return repo
