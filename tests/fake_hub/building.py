"""Making and looking at repos from inside a test, without HTTP."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

from tests.fake_hub.access import Token
from tests.fake_hub.store import (
    Commit,
    File,
    Repo,
    file_from_bytes,
    file_from_path,
    is_lfs,
    new_repo,
)

WRITE_TOKEN = "hf_TestHubWriteTokenDoNotPrint"
READ_TOKEN = "hf_TestHubReadTokenDoNotPrint"


class Building:
    """The state of a Hub and the short way to change it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # uploads of large files are kept here
        self.lock = threading.RLock()
        self.repos: dict[str, Repo] = {}
        self.tokens: dict[str, Token] = {}
        self.uploads: dict[str, File] = {}  # sha256 -> what LFS has
        self.parts = itertools.count()  # names for uploads that are not finished

    def empty(self) -> None:
        """Forget all repos, uploads and tokens but the two default ones."""
        self.repos.clear()
        self.uploads.clear()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.tokens.clear()
        self.add_token(WRITE_TOKEN, "write")
        self.add_token(READ_TOKEN, "read")

    def add_token(
        self,
        value: str,
        role: str = "write",
        user: str = "tester",
        orgs: tuple[str, ...] | None = None,
    ) -> Token:
        """Make a token known; see `Token` for `orgs` (None: all namespaces, (): a stranger)."""
        token = Token(value, role, user, orgs)
        self.tokens[value] = token
        return token

    def create_repo(
        self, repo_id: str, private: bool = False, gated: str | bool = False, author: str = "tester"
    ) -> Repo:
        """A new repo whose branch `main` holds `.gitattributes`; gated=True means "auto"."""
        with self.lock:
            assert repo_id not in self.repos, f"{repo_id} exists"
            repo = new_repo(repo_id, private, "auto" if gated is True else gated, author)
            self.repos[repo_id] = repo
            return repo

    def commit(
        self,
        repo_id: str,
        files: Mapping[str, bytes | str | Path | None],
        branch: str = "main",
        message: str = "commit",
        *,
        replace: bool = False,
        exact: bool = True,
    ) -> str:
        """Commit files to a branch, made from `main` when it does not exist.

        Args:
            repo_id: created if needed.
            files: path in the repo -> content, file to copy or serve, or None to delete.
            branch: name of the branch.
            message: title of the commit.
            replace: the commit holds these files and `.gitattributes`, nothing of its parent.
            exact: see `store.file_from_path`.

        Returns:
            The sha of the commit.
        """
        repo = self.repos.get(repo_id) or self.create_repo(repo_id)
        with repo.lock:
            parent = repo.commits[repo.branches.get(branch) or repo.branches["main"]]
            attributes = {".gitattributes": parent.files[".gitattributes"]}
            tree = attributes if replace else dict(parent.files)
            for path, source in files.items():
                if source is None:
                    del tree[path]
                else:
                    tree[path] = _file(tree, path, source, exact)
            sha = repo.add_commit(tree, parent, message).sha
            repo.branches[branch] = sha
            return sha

    def commit_folder(
        self,
        repo_id: str,
        folder: Path,
        branch: str = "main",
        message: str = "commit",
        *,
        replace: bool = True,
        exact: bool = True,
    ) -> str:
        """Commit all files below a folder; by default the commit holds exactly these."""
        files = {
            path.relative_to(folder).as_posix(): path
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        return self.commit(repo_id, files, branch, message, replace=replace, exact=exact)

    def branch(self, repo_id: str, name: str, at: str = "main") -> str:
        """Make a branch, or move it; returns the sha it points to."""
        commit = self._commit(repo_id, at)
        self.repos[repo_id].branches[name] = commit.sha
        return commit.sha

    def tag(self, repo_id: str, name: str, at: str = "main") -> str:
        """Make a tag, or move it; returns the sha it points to."""
        commit = self._commit(repo_id, at)
        self.repos[repo_id].tags[name] = commit.sha
        return commit.sha

    def heads(self, repo_id: str) -> dict[str, str]:
        """Branch -> sha."""
        return dict(self.repos[repo_id].branches)

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """Path -> content of a revision, `.gitattributes` left out."""
        files = self._commit(repo_id, revision).files
        return {path: file.read() for path, file in files.items() if path != ".gitattributes"}

    def history(self, repo_id: str, revision: str = "main") -> list[Commit]:
        """The commits of a revision, newest first."""
        commit = self._commit(repo_id, revision)
        return list(self.repos[repo_id].history(commit))

    def _commit(self, repo_id: str, revision: str) -> Commit:
        commit = self.repos[repo_id].resolve(revision)
        assert commit is not None, f"{repo_id} has no revision {revision}"
        return commit


def _file(tree: Mapping[str, File], path: str, source: bytes | str | Path, exact: bool) -> File:
    if isinstance(source, str):
        source = source.encode()
    if isinstance(source, bytes):
        return file_from_bytes(source, is_lfs(tree, path, len(source), source[:512]))
    with source.open("rb") as stream:
        sample = stream.read(512)
    lfs = is_lfs(tree, path, source.stat().st_size, sample)
    return file_from_path(source, lfs, exact)
