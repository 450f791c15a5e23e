"""An S3 on loopback: the moto server, with the real s3fs as its client; and fsspec's memory."""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.support.adapters import Adapters
from tests.support.models import Series


@dataclass(frozen=True)
class Store:
    """A folder in an object store: ``s3://bucket`` or ``memory://name``."""

    address: str

    @property
    def files(self) -> Any:
        """The file system of fsspec."""
        return fsspec.url_to_fs(self.address)[0]

    def path(self, *parts: str) -> str:
        """What the file system calls something below."""
        return "/".join([fsspec.url_to_fs(self.address)[1], *parts])

    def put(self, folder: Path, *parts: str) -> str:
        """Copy the files of a local folder; the address of the copy."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                name = file.relative_to(folder).as_posix()
                self.files.pipe_file(self.path(*parts, name), file.read_bytes())
        return "/".join([self.address, *parts])

    def put_series(self, series: Series | Adapters) -> None:
        """Copy a base to ``base``, and its checkpoints to ``run/checkpoint-N``."""
        folders = series.checkpoints if isinstance(series, Series) else series.folders
        self.put(series.base, "base")
        for step, folder in zip(series.steps, folders, strict=True):
            self.put(folder, "run", f"checkpoint-{step:g}")

    def names(self, *parts: str) -> dict[str, int]:
        """File below a folder → bytes."""
        self.files.invalidate_cache()
        root = self.path(*parts)
        found = self.files.find(root, detail=True)
        return {name[len(root) :].lstrip("/"): info["size"] for name, info in found.items()}

    def get(self, *parts: str) -> bytes:
        """The content of a file."""
        found: bytes = self.files.cat_file(self.path(*parts))
        return found

    def recipe(
        self, series: Series | Adapters, target_step: float = 20, **parameters: Any
    ) -> dict[str, Any]:
        """The recipe of :meth:`put_series`."""
        models = [f"{self.address}/run/checkpoint-{step:g}" for step in series.steps]
        return {
            "merge_method": "relex",
            "base_model": f"{self.address}/base",
            "models": [{"model": model} for model in models],
            "parameters": {"target_step": target_step, **parameters},
        }


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a moto server that holds everything in memory."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line for each request
    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            environment.delenv(name, raising=False)
        nowhere = str(tmp_path_factory.mktemp("aws") / "none")
        server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        for name, value in {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": nowhere,
            "AWS_SHARED_CREDENTIALS_FILE": nowhere,
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            environment.setenv(name, value)
        yield endpoint
        server.stop()


@pytest.fixture
def s3(s3_endpoint: str) -> Store:
    """An empty bucket of its own."""
    store = Store(f"s3://bucket-{uuid.uuid4().hex[:12]}")
    store.files.mkdir(store.path())
    return store


@pytest.fixture
def memory() -> Iterator[Store]:
    """An empty folder in fsspec's memory."""
    store = Store(f"memory://store-{uuid.uuid4().hex[:12]}")
    yield store
    if store.files.exists(store.path()):
        store.files.rm(store.path(), recursive=True)


@pytest.fixture(params=["s3", "memory"])
def store(request: pytest.FixtureRequest) -> Store:
    """One of both, empty."""
    found: Store = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def places_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The cache of files that are brought here, empty."""
    from huggingface_hub import constants

    home = tmp_path / "hf-home"
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    shutil.rmtree(home, ignore_errors=True)
    return home / "relex-merge-places"
