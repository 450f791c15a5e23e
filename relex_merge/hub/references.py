"""A model on the Hub as recipes name it: ``owner/name[/sub/folder][@revision]``.

A Hub repo has exactly two parts, so whatever follows them is a folder in it. mergekit parses such a
reference as it parses any other, but reads only the top of a repo.
"""

from __future__ import annotations

from dataclasses import dataclass

from relex_merge.errors import RelexError


@dataclass(frozen=True)
class HubReference:
    """A reference taken apart.

    repo: ``owner/name`` (or a lone ``name``); folder: in the repo, POSIX, "" for its top; revision:
    branch, tag or sha, None for the default branch.
    """

    repo: str
    folder: str = ""
    revision: str | None = None

    def __str__(self) -> str:
        path = f"{self.repo}/{self.folder}" if self.folder else self.repo
        return f"{path}@{self.revision}" if self.revision else path


def hub_reference(reference: str) -> HubReference:
    """The parts of a reference that is known to be no local folder."""
    path, _, revision = reference.partition("@")
    parts = path.rstrip("/").split("/")
    return HubReference("/".join(parts[:2]), "/".join(parts[2:]), revision or None)


def no_such(place: HubReference, error: RelexError) -> RelexError:
    """The error of looking for ``place`` on the Hub, with what else may have been meant by it."""
    if not place.folder:
        return error
    return RelexError(
        f"{place} is no folder on this disk, and it cannot be folder {place.folder} of a repo on "
        f"the Hub: {error}"
    )


def may_be_on_hub(path: str) -> bool:
    """Whether a path (without revision) that is no local folder can be meant for the Hub."""
    parts = path.rstrip("/").split("/")
    return path[:1] not in (".", "/", "~") and not {"", ".", ".."} & set(parts)
