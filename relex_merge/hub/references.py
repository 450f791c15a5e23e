"""A model on the Hub as recipes name it: ``owner/name[/sub/folder][@revision]``.

A Hub repo has exactly two parts, so whatever follows them is a folder in it. mergekit parses such a
reference as it parses any other, but reads only the top of a repo.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from relex_merge.errors import RelexError


@dataclass(frozen=True)
class HubReference:
    """A reference taken apart.

    Attributes:
        repo: ``owner/name``, or a lone ``name``.
        folder: in the repo, POSIX, "" for its top.
        revision: branch, tag or sha; None for the default branch.
    """

    repo: str
    folder: str = ""
    revision: str | None = None

    def __str__(self) -> str:
        path = f"{self.repo}/{self.folder}" if self.folder else self.repo
        return f"{path}@{self.revision}" if self.revision else path


def hub_reference(reference: str) -> HubReference:
    """Take a reference apart that is known to be no local folder."""
    path, _, revision = reference.partition("@")
    parts = path.rstrip("/").split("/")
    return HubReference("/".join(parts[:2]), "/".join(parts[2:]), revision or None)


def no_such(place: HubReference, error: RelexError) -> RelexError:
    """Return the error of looking for a folder in a repo, with what else may have been meant."""
    return RelexError(
        f"{place} is no folder on this disk, and it cannot be folder {place.folder} of a repo on "
        f"the Hub: {error}"
    )


def may_be_on_hub(path: str) -> bool:
    """Tell whether a path, without revision, that is no local folder can be meant for the Hub."""
    parts = path.rstrip("/").split("/")
    return path[:1] not in (".", "/", "~") and not {"", ".", ".."} & set(parts)


HUB = "https://huggingface.co"
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?", re.ASCII)


def hub_id(reference: str) -> str | None:
    """Return the repo id in ``org/name/folder@revision``, None for a local folder."""
    repo = hub_reference(re.split(r"[@+]", reference, maxsplit=1)[0]).repo
    return repo if _REPO_ID.fullmatch(repo) and not is_local_path(reference) else None


# What git and the Hub allow in the name of a branch; 40 hex digits would be taken for a commit.
BRANCH = re.compile(
    r"(?!refs/)(?![0-9a-f]{40}$)(?!.*(?:\.\.|//|\.lock$|/$|\.$))[A-Za-z0-9][\w./+=@%-]*"
)

# How a path begins that is absolute, on any system, as parts of regular expressions.
HOME = r"~(?:[A-Za-z_][\w.-]*)?"  # "~75/500" is a ratio, not a home
ROOT = rf"(?:file:/|{HOME}[\\/]|/|[A-Za-z]:[\\/]|\\\\)"
_WHOLE = re.compile(rf"{ROOT}[^\n]+")


def is_local_path(text: str) -> bool:
    """Tell whether the whole of ``text`` is an absolute path below a root, a home or a drive."""
    return _WHOLE.fullmatch(text) is not None
