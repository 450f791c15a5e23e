"""The repositories of the test Hub: files, commits, branches, tags and pull requests.

A commit is a whole mapping from path to file, so a revision never has to be reassembled. Large
files stay on disk and are served from there; small ones live in memory, so that a test may change
or delete the file it committed. Nothing here knows about HTTP.
"""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath

MEMORY_LIMIT = 8 << 20  # bytes: a file given as a path is copied into memory up to this size
LFS_SIZE = 10 << 20  # bytes: the Hub stores larger files with LFS whatever their name

_LFS_PATTERNS = (
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack "
    "*.npy *.npz *.onnx *.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors "
    "saved_model/**/* *.tar.* *.tar *.tflite *.tgz *.wasm *.xz *.zip *.zst *tfevents*"
)
GITATTRIBUTES = "".join(
    f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in _LFS_PATTERNS.split()
).encode()

_serial = itertools.count()  # makes commit shas unique, as the date does in git


@dataclass(frozen=True)
class File:
    """One version of one file.

    `oid` is the git blob id: of the content, or of the pointer when the file is stored with LFS,
    in which case `sha256` is set. The content is `data`, or the bytes of the file at `path`.
    """

    size: int
    oid: str
    sha256: str | None = None
    data: bytes | None = None
    path: Path | None = None

    @property
    def etag(self) -> str:
        return self.sha256 or self.oid

    @property
    def pointer_size(self) -> int:
        return len(_pointer(self.etag, self.size))

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        stop = self.size if stop is None else min(stop, self.size)
        if self.data is not None:
            return self.data[start:stop]
        assert self.path is not None
        with self.path.open("rb") as stream:
            stream.seek(start)
            return stream.read(stop - start)


@dataclass(frozen=True)
class Commit:
    sha: str
    parents: tuple[str, ...]
    files: Mapping[str, File]
    title: str
    description: str
    author: str
    date: datetime

    def folders(self) -> set[str]:
        return {
            str(parent)
            for path in self.files
            for parent in PurePosixPath(path).parents
            if str(parent) != "."
        }


@dataclass
class PullRequest:
    num: int
    title: str
    description: str
    author: str
    base: str  # the branch it wants to change
    head: str  # sha
    status: str = "open"
    date: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    @property
    def ref(self) -> str:
        return f"refs/pr/{self.num}"


@dataclass
class Repo:
    id: str
    private: bool = False
    gated: str | bool = False  # False, "auto" or "manual", as in the Hub's API
    disabled: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: dict[int, PullRequest] = field(default_factory=dict)
    created: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def namespace(self) -> str:
        return self.id.split("/", maxsplit=1)[0]

    def resolve(self, revision: str) -> Commit | None:
        """The commit a branch, tag, pull request ref, sha or unique prefix of a sha points to."""
        for sha in self._candidates(revision):
            if sha is not None:
                return self.commits[sha]
        if re.fullmatch(r"[0-9a-f]{7,40}", revision):
            found = [sha for sha in list(self.commits) if sha.startswith(revision)]
            if len(found) == 1:
                return self.commits[found[0]]
        return None

    def _candidates(self, revision: str) -> Iterator[str | None]:
        yield self.branches.get(revision)
        yield self.tags.get(revision)
        yield self.branches.get(revision.removeprefix("refs/heads/"))
        yield self.tags.get(revision.removeprefix("refs/tags/"))
        pull = re.fullmatch(r"refs/pr/(\d+)", revision)
        if pull and int(pull[1]) in self.pulls:
            yield self.pulls[int(pull[1])].head

    def history(self, commit: Commit) -> Iterator[Commit]:
        """The commit and its first parents, newest first."""
        while True:
            yield commit
            if not commit.parents:
                return
            commit = self.commits[commit.parents[0]]

    def add_commit(
        self,
        files: Mapping[str, File],
        parent: Commit | None,
        title: str,
        description: str = "",
        author: str = "tester",
    ) -> Commit:
        """Record a commit without moving any ref to it."""
        date = datetime.now(timezone.utc)
        text = "\n".join(
            [self.id, title, description, date.isoformat(), str(time.time_ns()), str(next(_serial))]
            + [parent.sha if parent else ""]
            + [f"{path} {file.oid}" for path, file in sorted(files.items())]
        )
        commit = Commit(
            sha=hashlib.sha1(text.encode()).hexdigest(),
            parents=(parent.sha,) if parent else (),
            files=dict(files),
            title=title,
            description=description,
            author=author,
            date=date,
        )
        self.commits[commit.sha] = commit
        return commit

    def open_pull(self, title: str, description: str, author: str, base: str) -> PullRequest:
        """Open a pull request whose ref starts at the head of the branch `base`."""
        head = self.branches[base]
        pull = PullRequest(len(self.pulls) + 1, title, description, author, base, head)
        self.pulls[pull.num] = pull
        return pull

    def move(self, ref: str, sha: str) -> None:
        """Point a branch or a pull request's ref at a commit."""
        pull = re.fullmatch(r"refs/pr/(\d+)", ref)
        if pull:
            self.pulls[int(pull[1])].head = sha
        else:
            self.branches[ref] = sha


def new_repo(repo_id: str, private: bool, gated: str | bool, author: str) -> Repo:
    """A repo with the initial commit that the Hub makes."""
    repo = Repo(repo_id, private=private, gated=gated)
    attributes = {".gitattributes": file_from_bytes(GITATTRIBUTES, lfs=False)}
    repo.branches["main"] = repo.add_commit(attributes, None, "initial commit", "", author).sha
    return repo


def file_from_bytes(data: bytes, lfs: bool) -> File:
    sha256 = hashlib.sha256(data).hexdigest() if lfs else None
    return File(len(data), _oid(sha256, len(data), data), sha256, data=data)


def file_from_path(path: Path, lfs: bool, exact: bool = True) -> File:
    """A file served from disk when it is large, copied into memory when it is small.

    Args:
        path: the file; it must not change while it is served.
        lfs: whether it is stored with LFS.
        exact: hash the content. Otherwise the sha256 of a large file is made up from its path,
            size and time of change, which saves reading it and which downloads do not notice.
    """
    size = path.stat().st_size
    if size <= MEMORY_LIMIT or not lfs:
        return file_from_bytes(path.read_bytes(), lfs)
    if exact:
        with path.open("rb") as stream:
            sha256 = _digest(stream)
    else:
        stamp = f"{path.resolve()} {size} {path.stat().st_mtime_ns}"
        sha256 = hashlib.sha256(stamp.encode()).hexdigest()
    return lfs_file(path, size, sha256)


def lfs_file(path: Path, size: int, sha256: str) -> File:
    return File(size, _oid(sha256, size, b""), sha256, path=path)


def is_lfs(files: Mapping[str, File], path: str, size: int, sample: bytes) -> bool:
    """Whether the Hub would store a new file with LFS: by `.gitattributes`, size or content."""
    if size == 0 or PurePosixPath(path).name == ".gitattributes":
        return False
    attributes = files[".gitattributes"].read() if ".gitattributes" in files else b""
    for line in attributes.decode().splitlines():
        pattern, _, settings = line.partition(" ")
        subject = path if "/" in pattern else PurePosixPath(path).name
        if "filter=lfs" in settings and fnmatch.fnmatchcase(subject, pattern):
            return True
    return size > LFS_SIZE or b"\0" in sample


def ref_name_problem(name: str) -> str | None:
    """What git's rules for ref names have against a branch or tag, or None."""
    bad = re.search(r"[\x00-\x20~^:?*\[\\\x7f]|\.\.|@\{|//|/$|^/|\.$|\.lock$|^-|^$", name)
    if bad or name == "@" or any(part.startswith(".") for part in name.split("/")):
        return f"Invalid reference name: {name!r}"
    if name.startswith("refs/") or re.fullmatch(r"[0-9a-f]{40}", name):
        return f"Reference name is reserved: {name!r}"
    return None


def _digest(stream: object) -> str:
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):  # type: ignore[attr-defined]
        digest.update(block)
    return digest.hexdigest()


def _pointer(sha256: str, size: int) -> bytes:
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    )


def _oid(sha256: str | None, size: int, data: bytes) -> str:
    blob = data if sha256 is None else _pointer(sha256, size)
    return hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()
