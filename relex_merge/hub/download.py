"""Reading from the Hugging Face Hub: pin a reference to its commit, find its files, fetch some.

Everything goes through the ``huggingface_hub`` client, so that tokens, endpoints, caches, offline
mode and retries are the ones its users know.
"""

from __future__ import annotations

import difflib
import glob
import re
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from relex_merge.errors import RelexError
from relex_merge.hub.contact import reach
from relex_merge.hub.errors import TOKEN_HELP, http_error, hub_errors, patiently, request_error

MODELS, FILES = 16, 8  # at a time
RESERVED = 40  # open files of everything else: libraries, pipes, the files that are written


@dataclass(frozen=True)
class Pin:
    """A Hub reference nailed to one commit.

    Attributes:
        repo: repo id.
        sha: 40 hex digits.
        files: names in the model's folder; empty when offline, where the cache decides.
        folder: where in the repo the model lies, "" for its top.
    """

    repo: str
    sha: str
    files: tuple[str, ...]
    folder: str = ""

    @property
    def mark(self) -> list[str]:
        """Return what is the same for the same files."""
        return [self.repo, self.sha, *([self.folder] if self.folder else [])]

    def path(self, file: str) -> str:
        """Return the path in the repo of one of the model's files."""
        return f"{self.folder}/{file}" if self.folder else file

    def matching(self, patterns: Sequence[str]) -> list[str]:
        """Return the model's files that fit any of the glob patterns."""
        return [f for f in self.files if any(fnmatch(f, pattern) for pattern in patterns)]


@dataclass(frozen=True)
class Commit:
    """One commit of a repo.

    Attributes:
        repo: repo id.
        sha: 40 hex digits.
        paths: of all its files, None when offline.
    """

    repo: str
    sha: str
    paths: tuple[str, ...] | None

    def at(self, folder: str = "") -> Pin:
        """Return the model in a folder of the commit. Raises RelexError where there is none."""
        if self.paths is None:
            return Pin(self.repo, self.sha, (), folder)
        start = f"{folder}/" if folder else ""
        below = [path.removeprefix(start) for path in self.paths if path.startswith(start)]
        files = tuple(path for path in below if "/" not in path)
        if not files:
            raise RelexError(self._no_such_folder(folder))
        return Pin(self.repo, self.sha, files, folder)

    def _no_such_folder(self, folder: str) -> str:
        ends = [path.rpartition("/") for path in self.paths or ()]
        models = sorted({place for place, _, name in ends if place and name == "config.json"})
        return (
            f"{self.repo} at {self.sha[:8]} has no files in its folder {folder!r}; folders with a "
            f"model that are nearest: {', '.join(nearest(folder, models)) or 'none'}"
        )


@contextmanager
def reading(repo: str, revision: str | None = None) -> Iterator[None]:
    """Read from a repo: a Hub that is away is told at once, and every fault as one RelexError.

    Args:
        repo: repo id.
        revision: branch, tag or sha, for the message.

    Raises:
        RelexError: one message with the cause and the remedy.
    """
    from huggingface_hub import errors

    with hub_errors(repo, token=None):
        try:
            reach(repo)
            yield
        except errors.RevisionNotFoundError as error:
            raise RelexError(_no_such_revision(repo, revision)) from error
        except errors.GatedRepoError:
            raise
        except errors.RepositoryNotFoundError as error:
            raise RelexError(
                f"{repo} is not on the Hub and is no local folder, or it is private: check the "
                f"name, or {TOKEN_HELP}"
            ) from error
        except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
            behind = request_error(error)
            if isinstance(behind, http_error()):
                raise behind from None
            at = f"@{revision}" if revision else ""
            raise RelexError(
                f"{repo}{at} is not in the cache and the Hub cannot be reached: go online once "
                "(unset HF_HUB_OFFLINE), or download it first"
            ) from error


def _no_such_revision(repo: str, revision: str | None) -> str:
    from huggingface_hub import HfApi

    refs = patiently(lambda: HfApi().list_repo_refs(repo))
    names = [ref.name for ref in [*refs.branches, *refs.tags]]
    near = nearest(str(revision), names)
    return f"{repo} has no revision {revision}; the nearest that exist: {', '.join(near) or 'none'}"


def nearest(wanted: str, names: Sequence[str], count: int = 5) -> list[str]:
    """Return the names most like ``wanted``, by spelling, then by the last number in them."""
    digits = re.findall(r"\d+", wanted)

    def distance(name: str) -> tuple[float, float]:
        likeness = difflib.SequenceMatcher(
            None, re.sub(r"\d+", "#", wanted), re.sub(r"\d+", "#", name)
        )
        own = re.findall(r"\d+", name)
        gap = abs(int(own[-1]) - int(digits[-1])) if own and digits else float("inf")
        return -round(likeness.ratio(), 2), gap

    return sorted(names, key=distance)[:count]


def pin(repo: str, revision: str | None, cache_dir: str | None = None) -> Commit:
    """Return the commit that a revision points to now, by one request; offline the cache answers.

    Args:
        repo: repo id.
        revision: branch, tag or sha; None for the default branch.
        cache_dir: the client's cache; None for its default.

    Raises:
        RelexError: there is no such repo or revision, or the Hub refuses.
    """
    from huggingface_hub import HfApi, constants

    with reading(repo, revision):
        if constants.HF_HUB_OFFLINE:
            folder = _snapshot(repo, revision, [], cache_dir, offline=True)
            return Commit(repo, folder.name, None)
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT  # by default a request has none
        info = patiently(lambda: HfApi().model_info(repo, revision=revision, timeout=timeout))
        paths = tuple(sibling.rfilename for sibling in info.siblings or ())
        return Commit(repo, str(info.sha), paths)


def download(pinned: Pin, patterns: Sequence[str], cache_dir: str | None = None) -> Path:
    """Bring a model's files to the cache, as far as they are missing, and return their folder.

    Args:
        pinned: the model.
        patterns: glob patterns of the files.
        cache_dir: the client's cache; None for its default.

    Raises:
        RelexError: the Hub refuses, or offline they are not in the cache.
    """
    # The client's patterns match in folders below too, so it is given names where they are known.
    offline = not pinned.files
    names = patterns if offline else [glob.escape(file) for file in pinned.matching(patterns)]
    wanted = [pinned.path(name) for name in names]
    below = pinned.path("*/*")
    root = _snapshot(pinned.repo, pinned.sha, wanted, cache_dir, offline=offline, but=below)
    folder = root / pinned.folder
    if offline and not folder.is_dir():
        raise RelexError(
            f"folder {pinned.folder} of {pinned.repo} is not in the cache and the Hub cannot be "
            "reached: go online once (unset HF_HUB_OFFLINE), or download it first"
        )
    return folder


def at_once() -> tuple[int, int]:
    """Return how many models are looked at or brought here at a time, and files of each.

    16 and 8, as far as the limit on open files goes: a download has a connection, a file and a
    lock open.
    """
    allowed = MODELS * FILES
    if sys.platform != "win32":
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY:
            allowed = max((soft - RESERVED) // 3, 1)
    models = min(MODELS, allowed)
    return models, max(min(FILES, allowed // models), 1)


def _snapshot(
    repo: str,
    revision: str | None,
    patterns: Sequence[str],
    cache_dir: str | None,
    *,
    offline: bool,
    but: str | None = None,
) -> Path:
    from huggingface_hub import snapshot_download

    with reading(repo, revision):
        return Path(
            patiently(
                lambda: snapshot_download(
                    repo,
                    revision=revision,
                    allow_patterns=list(patterns),
                    ignore_patterns=but,
                    cache_dir=cache_dir,
                    local_files_only=offline,
                    max_workers=at_once()[1],
                )
            )
        )


def download_file(pinned: Pin, file: str, cache_dir: str | None = None) -> Path:
    """Return one file of a commit, from the cache or brought there. Raises RelexError."""
    from huggingface_hub import hf_hub_download

    with reading(pinned.repo, pinned.sha):
        return Path(
            patiently(
                lambda: hf_hub_download(
                    pinned.repo, pinned.path(file), revision=pinned.sha, cache_dir=cache_dir
                )
            )
        )


def cached(pinned: Pin, files: Sequence[str], cache_dir: str | None = None) -> bool:
    """Tell whether all of these files of the model lie in the cache already."""
    from huggingface_hub import try_to_load_from_cache

    return all(
        isinstance(
            try_to_load_from_cache(pinned.repo, pinned.path(file), cache_dir, pinned.sha), str
        )
        for file in files
    )


# The client has no function for the two that follow: where a commit that it may not know yet is
# kept, and what a branch pointed to when it was pinned. They are as its documentation describes
# the cache ("Manage huggingface_hub cache-system"); tests hold them against the client itself.


def folder_of(pinned: Pin, cache_dir: str | None = None) -> Path:
    """Return where the cache keeps a model's files; it is there once one was downloaded."""
    return _cache_of(pinned, cache_dir) / "snapshots" / pinned.sha / pinned.folder


def remember(pinned: Pin, revision: str | None, cache_dir: str | None = None) -> None:
    """Note in the cache what a branch or tag pointed to, for offline mode.

    Args:
        pinned: the commit that it pointed to.
        revision: branch or tag, None for the default branch; a sha needs no note.
        cache_dir: the client's cache; None for its default.
    """
    if revision == pinned.sha:
        return
    ref = _cache_of(pinned, cache_dir) / "refs" / (revision or "main")
    ref.parent.mkdir(parents=True, exist_ok=True)
    note = ref.with_name(f"{ref.name}.{uuid.uuid4().hex[:8]}.tmp")
    note.write_text(pinned.sha, encoding="utf-8")
    note.replace(ref)  # at once, so that no reader sees half a sha


def _cache_of(pinned: Pin, cache_dir: str | None) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    root = Path(cache_dir or constants.HF_HUB_CACHE)
    return root / repo_folder_name(repo_id=pinned.repo, repo_type="model")


@contextmanager
def progress_bars(shown: bool) -> Iterator[None]:
    """Show ``huggingface_hub``'s progress bars or not, and leave them as they were."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    silence = not shown and not are_progress_bars_disabled()
    if silence:
        disable_progress_bars()
    try:
        yield
    finally:
        if silence:
            enable_progress_bars()
