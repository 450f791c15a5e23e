"""Reading from the Hugging Face Hub: pin a reference to its commit, find its files, fetch some.

Everything goes through the ``huggingface_hub`` client, so that tokens, endpoints, caches, offline
mode and retries are the ones its users know.
"""

from __future__ import annotations

import difflib
import glob
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from relex_merge.errors import RelexError
from relex_merge.hub.errors import TOKEN_HELP, hub_errors, patiently


@dataclass(frozen=True)
class Pin:
    """A Hub reference nailed to one commit.

    sha: 40 hex digits; files: the names in the model's folder, empty when offline (the cache
    decides); folder: where in the repo the model lies, "" for its top.
    """

    repo: str
    sha: str
    files: tuple[str, ...]
    folder: str = ""

    @property
    def mark(self) -> list[str]:
        """The same for the same files."""
        return [self.repo, self.sha, *([self.folder] if self.folder else [])]

    def path(self, file: str) -> str:
        """Path in the repo of one of the model's files."""
        return f"{self.folder}/{file}" if self.folder else file

    def matching(self, patterns: Sequence[str]) -> list[str]:
        """The model's files that fit any of the glob patterns."""
        return [f for f in self.files if any(fnmatch(f, pattern) for pattern in patterns)]


@dataclass(frozen=True)
class Commit:
    """One commit of a repo. paths: of all its files, None when offline."""

    repo: str
    sha: str
    paths: tuple[str, ...] | None

    def at(self, folder: str = "") -> Pin:
        """The model in a folder of the commit. Raises RelexError when there is no such folder."""
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
    """Turn what the client raises inside into one RelexError with the remedy, never a token."""
    from huggingface_hub import errors

    with hub_errors(repo, token=None):
        try:
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
            at = f"@{revision}" if revision else ""
            raise RelexError(
                f"{repo}{at} is not in the cache and the Hub cannot be reached: go online once "
                "(unset HF_HUB_OFFLINE), or download it first"
            ) from error


def _no_such_revision(repo: str, revision: str | None) -> str:
    from huggingface_hub import HfApi

    refs = HfApi().list_repo_refs(repo)
    names = [ref.name for ref in [*refs.branches, *refs.tags]]
    near = nearest(str(revision), names)
    return f"{repo} has no revision {revision}; the nearest that exist: {', '.join(near) or 'none'}"


def nearest(wanted: str, names: Sequence[str], count: int = 5) -> list[str]:
    """The names most like ``wanted``; among names with numbers those with the nearest number."""
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
    """The commit that ``revision`` (branch, tag, sha; None: the default branch) points to now.

    One request. In offline mode the cache answers. Raises RelexError.
    """
    from huggingface_hub import HfApi, constants

    with reading(repo, revision):
        if constants.HF_HUB_OFFLINE:
            folder = _snapshot(repo, revision, [], cache_dir, offline=True)
            return Commit(repo, folder.name, None)
        info = patiently(lambda: HfApi().model_info(repo, revision=revision))
        paths = tuple(sibling.rfilename for sibling in info.siblings or ())
        return Commit(repo, str(info.sha), paths)


def download(pinned: Pin, patterns: Sequence[str], cache_dir: str | None = None) -> Path:
    """The cache's folder of a model with the files that match; downloaded as far as missing."""
    # The client's patterns match in folders below too, so it is given names where they are known.
    offline = not pinned.files
    names = patterns if offline else [glob.escape(file) for file in pinned.matching(patterns)]
    wanted = [pinned.path(name) for name in names]
    _snapshot(pinned.repo, pinned.sha, wanted, cache_dir, offline=offline, but=pinned.path("*/*"))
    folder = folder_of(pinned, cache_dir)
    if not pinned.files and not folder.is_dir():
        raise RelexError(
            f"folder {pinned.folder} of {pinned.repo} is not in the cache and the Hub cannot be "
            "reached: go online once (unset HF_HUB_OFFLINE), or download it first"
        )
    return folder


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
                )
            )
        )


def remember(pinned: Pin, revision: str | None, cache_dir: str | None = None) -> None:
    """Note in the cache, as the client does, what a branch or tag pointed to: for offline mode."""
    if revision != pinned.sha:
        ref = _cache_of(pinned, cache_dir) / "refs" / (revision or "main")
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(pinned.sha, encoding="utf-8")


def download_file(pinned: Pin, file: str, cache_dir: str | None = None) -> Path:
    """One file of a commit, from the cache or brought there."""
    from huggingface_hub import hf_hub_download

    with reading(pinned.repo, pinned.sha):
        return Path(
            patiently(
                lambda: hf_hub_download(
                    pinned.repo, pinned.path(file), revision=pinned.sha, cache_dir=cache_dir
                )
            )
        )


def folder_of(pinned: Pin, cache_dir: str | None = None) -> Path:
    """Where the cache keeps a model's files; it is there once one was downloaded."""
    return _cache_of(pinned, cache_dir) / "snapshots" / pinned.sha / pinned.folder


def _cache_of(pinned: Pin, cache_dir: str | None) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    root = Path(cache_dir or constants.HF_HUB_CACHE)
    return root / repo_folder_name(repo_id=pinned.repo, repo_type="model")


def cached(pinned: Pin, files: Sequence[str], cache_dir: str | None = None) -> bool:
    """Whether all of these files of the model lie in the cache already."""
    from huggingface_hub import try_to_load_from_cache

    return all(
        isinstance(
            try_to_load_from_cache(pinned.repo, pinned.path(file), cache_dir, pinned.sha), str
        )
        for file in files
    )


@contextmanager
def progress_bars(shown: bool) -> Iterator[None]:
    """``huggingface_hub``'s progress bars off where they are not wanted, and as they were after."""
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
