"""The test Hub is to the real client what the real Hub is: downloads, uploads, faults."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    constants,
    hf_hub_download,
    hf_hub_url,
    snapshot_download,
)
from huggingface_hub._commit_api import CommitOperation
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
)
from huggingface_hub.file_download import get_hf_file_metadata

from tests.fake_hub import Fault, Hub
from tests.fake_hub.access import Token
from tests.fake_hub.building import WRITE_TOKEN
from tests.fake_hub.store import File

REPO = "org/series"
WEIGHTS = bytes(range(256)) * 1000
api = HfApi()


@pytest.fixture
def sha(hub: Hub) -> str:
    """A repo with one small and one LFS file on main."""
    return hub.commit(REPO, {"config.json": b"{}", "model.safetensors": WEIGHTS})


def get(url: str, headers: dict[str, str] | None = None) -> tuple[int, bytes, dict[str, str]]:
    """A plain GET that follows redirects; headers of the answer in lower case."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {})) as answer:
            return answer.status, answer.read(), {k.lower(): v for k, v in answer.headers.items()}
    except urllib.error.HTTPError as error:
        return error.code, error.read(), {k.lower(): v for k, v in error.headers.items()}


def status_of(call: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return call.value.response.status_code


# downloads


def test_metadata_of_files_is_that_of_the_hub(hub: Hub, hub_login: Token, sha: str) -> None:
    small = get_hf_file_metadata(hf_hub_url(REPO, "config.json"))
    assert (small.commit_hash, small.size) == (sha, 2)
    assert urlsplit(small.location).netloc == urlsplit(hub.url).netloc
    large = get_hf_file_metadata(hf_hub_url(REPO, "model.safetensors"))
    assert (large.commit_hash, large.size) == (sha, len(WEIGHTS))
    assert large.etag == hub.repos[REPO].commits[sha].files["model.safetensors"].sha256
    assert large.location.startswith(hub.cdn_url)


def test_the_token_stays_on_the_hub(hub: Hub, hub_login: Token, sha: str) -> None:
    snapshot_download(REPO)
    assert all(entry.has_token for entry in hub.requests("/resolve/"))
    assert [entry.has_token for entry in hub.requests("GET /cdn/")] == [False]
    location = get_hf_file_metadata(hf_hub_url(REPO, "model.safetensors")).location
    assert get(location, {"Authorization": f"Bearer {WRITE_TOKEN}"})[0] == 400
    assert WRITE_TOKEN not in str(hub.requests())


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("0-9", 0, 10), ("250-", 250, None), ("-7", -7, None), ("100-999999999", 100, None)],
)
@pytest.mark.parametrize("name", ["model.safetensors", "big.txt"])
def test_ranges_are_served_exactly(
    hub: Hub, sha: str, name: str, asked: str, start: int, stop: int | None
) -> None:
    hub.commit(REPO, {"big.txt": b"0123456789" * 300})
    whole = hub.files(REPO)[name]
    status, body, headers = get(hf_hub_url(REPO, name), {"Range": f"bytes={asked}"})
    assert (status, body) == (206, whole[start:stop])
    first = start % len(whole)
    assert headers["content-range"] == f"bytes {first}-{first + len(body) - 1}/{len(whole)}"


def test_a_range_behind_the_end_is_refused(hub: Hub, sha: str) -> None:
    status, _, headers = get(hf_hub_url(REPO, "model.safetensors"), {"Range": "bytes=256000-"})
    assert (status, headers["content-range"]) == (416, "bytes */256000")


def test_a_missing_file_is_named_as_such(hub: Hub, sha: str) -> None:
    with pytest.raises(RemoteEntryNotFoundError) as refusal:
        hf_hub_download(REPO, "absent.json")
    assert refusal.value.response.headers["X-Repo-Commit"] == sha
    assert not api.file_exists(REPO, "absent.json")
    assert api.file_exists(REPO, "config.json")


def test_snapshots_by_branch_tag_and_sha_are_cached(
    hub: Hub, sha: str, request: pytest.FixtureRequest
) -> None:
    hub.branch(REPO, "ckpt/50", at=sha)
    hub.tag(REPO, "v1", at=sha)
    folders = {snapshot_download(REPO, revision=rev) for rev in ("ckpt/50", "v1", sha, sha[:8])}
    assert len(folders) == 1
    assert (Path(folders.pop()) / "model.safetensors").read_bytes() == WEIGHTS
    assert hub.log.bytes_sent("GET /cdn/.*/model.safetensors") == len(WEIGHTS)
    request.getfixturevalue("offline")
    assert snapshot_download(REPO, revision="v1")
    with pytest.raises(LocalEntryNotFoundError):
        snapshot_download("org/other")


def test_signed_urls_expire(hub: Hub, sha: str) -> None:
    def location() -> str:
        return get_hf_file_metadata(hf_hub_url(REPO, "model.safetensors")).location

    first = location()
    assert get(first)[:2] == (200, WEIGHTS)
    hub.expire_urls()
    assert get(first)[0] == 403
    assert get(location())[0] == 200
    hub.url_lifetime = -1
    assert get(location())[0] == 403


def test_large_files_are_served_from_disk(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(WEIGHTS * 40)
    sha = hub.commit(REPO, {path.name: path}, exact=False)
    file = hub.repos[REPO].commits[sha].files[path.name]
    assert isinstance(file, File)
    assert (file.data, file.path) == (None, path)
    assert Path(hf_hub_download(REPO, path.name)).read_bytes() == WEIGHTS * 40
    part = get(hf_hub_url(REPO, path.name), {"Range": "bytes=1000-9000000"})[1]
    assert part == (WEIGHTS * 40)[1000:9000001]


def test_the_log_counts_bytes_files_and_simultaneous_requests(hub: Hub, sha: str) -> None:
    hub.faults.add(Fault("GET /cdn/", times=None, delay=0.2))
    url = hf_hub_url(REPO, "model.safetensors")
    ranges = [{"Range": f"bytes={i * 1000}-{i * 1000 + 999}"} for i in range(3)]
    with ThreadPoolExecutor(3) as pool:
        assert all(body for _, body, _ in pool.map(lambda r: get(url, r), ranges))
    assert hub.log.most_at_once("GET /cdn/") == 3
    assert hub.log.bytes_sent("GET /cdn/.*/model.safetensors") == 3000
    entries = hub.requests("GET /cdn/")
    assert sorted(entry.range or "" for entry in entries) == [r["Range"] for r in ranges]
    assert {(e.repo, e.commit, e.file, e.status) for e in entries} == {
        (REPO, sha, "model.safetensors", 206)
    }
    assert {entry.revision for entry in hub.requests("/resolve/")} == {"main"}


# uploads


def test_a_folder_arrives_in_one_commit(hub: Hub, hub_login: Token, tmp_path: Path) -> None:
    files = {"model.safetensors": WEIGHTS, "config.json": b"{}", "sub/notes.txt": b"hi"}
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    api.create_repo(REPO)
    info = api.upload_folder(repo_id=REPO, folder_path=tmp_path, commit_message="all of it")
    assert hub.heads(REPO) == {"main": info.oid}
    assert hub.files(REPO) == files
    assert [commit.title for commit in hub.history(REPO)] == ["all of it", "initial commit"]
    assert len(hub.requests("PUT /lfs/")) == 1
    assert hub.requests("PUT /lfs/")[0].received == len(WEIGHTS)
    api.upload_folder(repo_id=REPO, folder_path=tmp_path, path_in_repo="again")
    assert len(hub.requests("PUT /lfs/")) == 1, "LFS has the content already"
    hub.log.clear()
    api.upload_folder(repo_id=REPO, folder_path=tmp_path)
    assert not hub.requests("POST .*/commit/"), "nothing changed"


def test_an_upload_in_parts_is_put_together(hub: Hub, hub_login: Token) -> None:
    hub.multipart_size = 100_000
    api.create_repo(REPO)
    api.upload_file(path_or_fileobj=WEIGHTS, path_in_repo="model.safetensors", repo_id=REPO)
    assert [entry.received for entry in hub.requests("PUT /lfs/")] == [100_000, 100_000, 56_000]
    assert hub.files(REPO) == {"model.safetensors": WEIGHTS}


def test_an_upload_with_another_hash_is_refused(hub: Hub) -> None:
    url = f"{hub.cdn_url}/lfs/{'0' * 64}"
    put = urllib.request.Request(url, data=b"something else", method="PUT")
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(put)
    assert refusal.value.code == 400
    assert not hub.uploads


def test_commits_delete_copy_and_replace(hub: Hub, hub_login: Token, sha: str) -> None:
    hub.commit(REPO, {"old/a.txt": b"a", "old/b.txt": b"b", "c.txt": b"c"})
    operations: list[CommitOperation] = [
        CommitOperationDelete("old/"),
        CommitOperationDelete("c.txt"),
        CommitOperationAdd("c.txt", b"new c"),
        CommitOperationCopy("model.safetensors", "copy.safetensors"),
        CommitOperationCopy("config.json", "copy.json"),
    ]
    info = api.create_commit(
        REPO, operations, commit_message="title", commit_description="a longer text"
    )
    assert set(hub.files(REPO)) == {
        *("c.txt", "config.json", "copy.json", "copy.safetensors", "model.safetensors"),
    }
    assert hub.files(REPO)["copy.safetensors"] == WEIGHTS
    assert hub.files(REPO)["c.txt"] == b"new c"
    newest = hub.history(REPO)[0]
    assert (newest.sha, newest.title, newest.description) == (info.oid, "title", "a longer text")
    with pytest.raises(RemoteEntryNotFoundError, match="doesn't exist"):
        api.delete_file("absent.txt", REPO)


def test_a_commit_on_a_stale_parent_is_refused(hub: Hub, hub_login: Token, sha: str) -> None:
    newer = hub.commit(REPO, {"a.txt": b"a"})
    with pytest.raises(HfHubHTTPError) as refusal:
        api.create_commit(
            REPO,
            [CommitOperationAdd("b.txt", b"b")],
            commit_message="late",
            parent_commit=sha,
        )
    assert status_of(refusal) == 412
    assert hub.heads(REPO) == {"main": newer}


def test_a_pull_request_leaves_its_branch_alone(hub: Hub, hub_login: Token, sha: str) -> None:
    addition = CommitOperationAdd("model.safetensors", WEIGHTS[::-1])
    info = api.create_commit(REPO, [addition], commit_message="proposal", create_pr=True)
    assert (info.pr_url, info.pr_revision) == (f"{hub.url}/{REPO}/discussions/1", "refs/pr/1")
    assert hub.heads(REPO) == {"main": sha}
    path = hf_hub_download(REPO, "model.safetensors", revision="refs/pr/1")
    assert Path(path).read_bytes() == WEIGHTS[::-1]
    more = [CommitOperationAdd("more.txt", b"more")]
    api.create_commit(REPO, more, commit_message="more", revision="refs/pr/1")
    assert len(hub.history(REPO, "refs/pr/1")) == 4
    pulls = api.list_repo_refs(REPO, include_pull_requests=True).pull_requests
    assert [(pull.name, pull.ref) for pull in pulls or []] == [("1", "refs/pr/1")]
    assert [(d.num, d.title) for d in api.get_repo_discussions(REPO)] == [(1, "proposal")]
    assert api.get_discussion_details(REPO, 1).target_branch == "refs/heads/main"


def test_the_validator_accepts_a_good_card(hub: Hub) -> None:
    card = ModelCard(
        "---\nlicense: apache-2.0\nbase_model: org/base\nbase_model_relation: merge\n"
        "library_name: transformers\npipeline_tag: text-generation\ntags: [merge, relex]\n---\nHi"
    )
    card.validate()


@pytest.mark.parametrize(
    "line",
    [
        "license: qwen-research",
        "base_model: /home/me/model",
        "base_model_relation: extrapolation",
        "pipeline_tag: [text-generation]",
        "tags: relex",
        "tags: [1, 2]",
        "key: [unclosed",
    ],
)
def test_the_validator_stops_a_commit_with_a_bad_card(
    hub: Hub, hub_login: Token, sha: str, line: str
) -> None:
    card = f"---\n{line}\n---\nHi".encode()
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=REPO)
    assert hub.heads(REPO) == {"main": sha}


def test_a_card_without_metadata_gets_a_warning(hub: Hub, hub_login: Token, sha: str) -> None:
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        api.upload_file(path_or_fileobj=b"Hi", path_in_repo="README.md", repo_id=REPO)


# faults


def test_the_client_waits_as_long_as_a_429_says(
    hub: Hub, hub_login: Token, sha: str, no_waiting: list[float]
) -> None:
    fault = hub.faults.add(Fault("GET .*/tree/", times=2, status=429, headers={"Retry-After": "7"}))
    assert "config.json" in api.list_repo_files(REPO)
    assert (fault.fired, no_waiting) == (2, [8.0, 8.0])


def test_a_500_or_503_passes(hub: Hub, hub_login: Token, sha: str, no_waiting: list[float]) -> None:
    hub.faults.add(Fault("PUT /lfs/", status=500))
    hub.faults.add(Fault("POST .*/preupload/", status=503))
    api.upload_file(path_or_fileobj=WEIGHTS[1:], path_in_repo="b.safetensors", repo_id=REPO)
    assert hub.files(REPO)["b.safetensors"] == WEIGHTS[1:]
    assert [entry.status for entry in hub.requests("PUT /lfs/")] == [500, 200]


def test_a_cut_download_is_resumed_with_a_range(
    hub: Hub, tmp_path: Path, no_waiting: list[float]
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(WEIGHTS * 60)
    hub.commit(REPO, {path.name: path}, exact=False)
    hub.faults.add(Fault("GET /cdn/", cut_after=12_000_000))
    assert Path(hf_hub_download(REPO, path.name)).read_bytes() == WEIGHTS * 60
    first, second = hub.requests("GET /cdn/")
    assert (first.sent, first.range) == (12_000_000, None)
    resumed = constants.DOWNLOAD_CHUNK_SIZE  # the client keeps whole chunks only
    assert second.range == f"bytes={resumed}-"
    assert (second.status, second.sent) == (206, len(WEIGHTS) * 60 - resumed)


def test_a_bug_in_a_fault_is_not_lost(hub: Hub, sha: str) -> None:
    hub.faults.add(Fault("GET /cdn/", action=lambda: 1 // 0))
    with pytest.raises(http.client.RemoteDisconnected):
        get(hf_hub_url(REPO, "model.safetensors"))
    hub.log.settle()
    assert "ZeroDivisionError" in hub.crashes.pop()


@pytest.mark.parametrize(
    ("match", "status"),
    [("PUT /lfs/", 403), ("POST .*/commit/", 403), ("POST .*/commit/", 500), ("/commit/", 412)],
)
def test_a_refused_upload_or_commit_changes_nothing(
    hub: Hub, hub_login: Token, sha: str, match: str, status: int
) -> None:
    hub.faults.add(Fault(match, status=status, message="out of order"))

    def push() -> None:
        api.upload_file(path_or_fileobj=WEIGHTS[1:], path_in_repo="b.safetensors", repo_id=REPO)

    with pytest.raises((HfHubHTTPError, RuntimeError)):
        push()
    assert hub.heads(REPO) == {"main": sha}
    push()
    assert len(hub.history(REPO)) == 3


def test_an_answer_lost_after_the_commit_leaves_the_commit(
    hub: Hub, hub_login: Token, sha: str
) -> None:
    hub.faults.add(Fault("POST .*/commit/", drop="after"))
    with pytest.raises(Exception, match="disconnected"):
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=REPO)
    assert hub.files(REPO)["x.txt"] == b"x"


def test_a_file_can_have_another_length_than_announced(hub: Hub, sha: str) -> None:
    url = hf_hub_url(REPO, "model.safetensors")
    hub.faults.add(Fault("GET /cdn/", resize=1000))
    hub.faults.add(Fault("GET /cdn/", after=1, resize=300_000))
    assert get(url)[1] == WEIGHTS[:1000]
    assert get(url)[1] == WEIGHTS + bytes(44_000)
    hub.faults.add(Fault("GET /cdn/", resize=1000))
    with pytest.raises(OSError, match="Consistency check failed"):
        hf_hub_download(REPO, "model.safetensors")


def test_a_file_that_vanishes_from_disk_cuts_the_download(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(9 << 20))
    hub.commit(REPO, {path.name: path}, exact=False)
    os.truncate(path, 1000)
    with pytest.raises(Exception, match="IncompleteRead"):
        get(hf_hub_url(REPO, path.name))


def test_something_can_happen_between_two_requests(hub: Hub, sha: str) -> None:
    url = hf_hub_url(REPO, "model.safetensors")
    hub.after(2, "GET .*/resolve/main/", lambda: hub.commit(REPO, {"model.safetensors": b"new"}))
    assert [get(url)[1][:3] for _ in range(3)] == [WEIGHTS[:3], WEIGHTS[:3], b"new"]
    assert get(hf_hub_url(REPO, "model.safetensors", revision=sha))[1] == WEIGHTS
    assert [entry.commit == sha for entry in hub.requests("/resolve/")] == [True, True, False, True]
