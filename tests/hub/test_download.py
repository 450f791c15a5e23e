"""What is kept in the client's cache: the client itself finds it, offline too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_download, snapshot_download, try_to_load_from_cache

from relex_merge.errors import RelexError
from relex_merge.hub import download
from tests.fake_hub import Fault, Hub

REPO = "org/model"
FILES: dict[str, bytes | str | Path | None] = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "deep/config.json": b"{ }",
    "deep/er/config.json": b"{  }",
}


@pytest.fixture
def sha(hub: Hub) -> str:
    return hub.commit(REPO, FILES, branch="ckpt/5")


@pytest.fixture(params=[None, "elsewhere"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    """The client's own cache, and another one."""
    return None if request.param is None else str(tmp_path / request.param)


def test_what_a_branch_pointed_to_is_known_to_the_client_offline(
    sha: str, hub: Hub, cache: str | None
) -> None:
    pinned = download.pin(REPO, "ckpt/5", cache).at()
    download.download(pinned, ["*.json"], cache)
    for revision in ("ckpt/5", None):
        download.remember(pinned, revision, cache)
        found = snapshot_download(
            REPO, revision=revision, cache_dir=cache, local_files_only=True, allow_patterns=["*.x"]
        )
        assert Path(found) == download.folder_of(pinned, cache).resolve()
        assert isinstance(try_to_load_from_cache(REPO, "config.json", cache, revision), str)
    root = Path(cache or constants.HF_HUB_CACHE)
    assert {path.name for path in root.glob("models--*/refs/**/*")} == {"ckpt", "5", "main"}


def test_a_sha_is_not_noted(sha: str, hub: Hub, cache: str | None) -> None:
    pinned = download.pin(REPO, sha, cache).at()
    download.remember(pinned, sha, cache)
    assert not list(Path(cache or constants.HF_HUB_CACHE).glob("models--*/refs/*"))


@pytest.mark.parametrize("folder", ["", "deep"])
def test_a_models_folder_is_where_the_client_keeps_its_files(
    sha: str, hub: Hub, folder: str, cache: str | None
) -> None:
    pinned = download.pin(REPO, "ckpt/5", cache).at(folder)
    there = hf_hub_download(REPO, pinned.path("config.json"), revision=sha, cache_dir=cache)
    assert download.folder_of(pinned, cache) == Path(there).parent
    assert download.download(pinned, ["*.json"], cache).resolve() == Path(there).parent.resolve()
    assert not (Path(there).parent / "er").exists()  # of folders below nothing is fetched


def test_offline_a_branch_that_was_noted_is_pinned_from_the_cache(
    sha: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = download.pin(REPO, "ckpt/5").at()
    download.download(pinned, ["*.json"])
    download.remember(pinned, "ckpt/5")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.log.clear()
    again = download.pin(REPO, "ckpt/5")
    assert (again.sha, again.paths) == (sha, None)
    assert (download.download(again.at(), ["*.json"]) / "config.json").read_bytes() == b"{}"
    with pytest.raises(RelexError, match="HF_HUB_OFFLINE"):
        download.download(again.at("gone"), ["*.json"])
    assert not hub.requests()


def test_a_hub_that_fails_is_not_taken_for_a_missing_file(
    sha: str, hub: Hub, no_waiting: list[float]
) -> None:
    pinned = download.pin(REPO, "ckpt/5").at()
    fault = hub.faults.add(Fault("/resolve/", times=3, status=500))
    assert download.download_file(pinned, "config.json").read_bytes() == b"{}"
    assert fault.fired == 3
    hub.faults.add(Fault("/resolve/", times=None, status=500))
    with pytest.raises(RelexError, match=r"org/model: the Hub fails with status 500"):
        download.download_file(pinned, "deep/config.json")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@pytest.mark.parametrize(
    ("soft", "expected"),
    [(65_536, (16, 8)), (1024, (16, 8)), (256, (16, 4)), (64, (8, 1)), (16, (1, 1))],
)
def test_downloads_keep_to_the_limit_on_open_files(
    soft: int, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    models, files = download.at_once()
    assert (models, files) == expected
    assert 3 * models * files <= max(soft - download.RESERVED, 3)
