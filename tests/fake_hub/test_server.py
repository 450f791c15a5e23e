"""The test Hub is to the real client what the real Hub is: accounts, refs, listings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import (
    HfApi,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    BadRequestError,
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from tests.fake_hub import Hub
from tests.fake_hub.access import Token
from tests.fake_hub.building import READ_TOKEN, WRITE_TOKEN

REPO = "org/series"
WEIGHTS = bytes(range(256)) * 1000
ROOT = Path(__file__).parents[2]
api = HfApi()


@pytest.fixture
def sha(hub: Hub) -> str:
    """A repo with one small and one LFS file on main."""
    return hub.commit(REPO, {"config.json": b"{}", "model.safetensors": WEIGHTS})


def status_of(call: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return call.value.response.status_code


# accounts


def test_whoami_tells_user_and_role(hub: Hub) -> None:
    me = api.whoami(token=READ_TOKEN)
    assert (me["name"], me["auth"]["accessToken"]["role"]) == ("tester", "read")


def test_an_unknown_token_is_refused_everywhere(hub: Hub, sha: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: api.whoami(token="hf_nobody"),
        lambda: api.model_info(REPO, token="hf_nobody"),
        lambda: api.create_repo("org/new", token="hf_nobody"),
    ]
    for call in calls:
        with pytest.raises(HfHubHTTPError, match=r"Invalid (credentials|user token)") as refusal:
            call()
        assert status_of(refusal) == 401
        assert not isinstance(refusal.value, RepositoryNotFoundError)


def test_a_read_token_cannot_write(hub: Hub, sha: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: api.create_repo("org/new", token=READ_TOKEN),
        lambda: api.create_branch(REPO, branch="b", token=READ_TOKEN),
        lambda: api.upload_file(
            path_or_fileobj=b"x", path_in_repo="x", repo_id=REPO, token=READ_TOKEN
        ),
        lambda: api.auth_check(REPO, write=True, token=READ_TOKEN),
    ]
    for call in calls:
        with pytest.raises(HfHubHTTPError) as refusal:
            call()
        assert status_of(refusal) == 403
    assert hub.heads(REPO) == {"main": sha}


def test_a_stranger_writes_only_pull_requests(hub: Hub, sha: str) -> None:
    stranger = hub.add_token("hf_stranger", "write", user="guest", orgs=()).value
    with pytest.raises(HfHubHTTPError, match="create_pr") as refusal:
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=REPO, token=stranger)
    assert status_of(refusal) == 403
    with pytest.raises(HfHubHTTPError, match="rights to create"):
        api.create_repo("org/other", token=stranger)
    info = api.upload_file(
        path_or_fileobj=WEIGHTS[:-1],
        path_in_repo="b.safetensors",
        repo_id=REPO,
        token=stranger,
        create_pr=True,
    )
    assert info.pr_num == 1
    assert hub.heads(REPO) == {"main": sha}


def test_a_private_repo_does_not_exist_for_others(hub: Hub) -> None:
    hub.create_repo("org/secret", private=True)
    hub.commit("org/secret", {"a.txt": b"a"})
    stranger = hub.add_token("hf_stranger", "read", user="guest", orgs=()).value
    for token, status in ((False, 401), (stranger, 404)):
        with pytest.raises(RepositoryNotFoundError) as refusal:
            api.model_info("org/secret", token=token)
        assert status_of(refusal) == status
        with pytest.raises(RepositoryNotFoundError):
            hf_hub_download("org/secret", "a.txt", token=token)
    assert api.model_info("org/secret", token=READ_TOKEN).private
    assert Path(hf_hub_download("org/secret", "a.txt", token=READ_TOKEN)).read_bytes() == b"a"


def test_a_gated_repo_shows_its_info_but_not_its_files(hub: Hub) -> None:
    hub.create_repo("org/gate", gated=True)
    hub.commit("org/gate", {"model.safetensors": WEIGHTS})
    stranger = hub.add_token("hf_stranger", "read", user="guest", orgs=()).value
    for token, status in ((False, 401), (stranger, 403)):
        assert api.model_info("org/gate", token=token).gated == "auto"
        with pytest.raises(GatedRepoError) as refusal:
            hf_hub_download("org/gate", "model.safetensors", token=token)
        assert status_of(refusal) == status
    assert hf_hub_download("org/gate", "model.safetensors", token=READ_TOKEN)


def test_a_disabled_repo_says_so(hub: Hub, sha: str) -> None:
    hub.repos[REPO].disabled = True
    with pytest.raises(DisabledRepoError):
        api.model_info(REPO)


# repos and refs


def test_a_created_repo_has_the_initial_commit(hub: Hub, hub_login: Token) -> None:
    assert api.create_repo("org/new", private=True) == f"{hub.url}/org/new"
    assert api.create_repo("mine").repo_id == "tester/mine"
    assert hub.repos["org/new"].private
    assert api.list_repo_files("org/new") == [".gitattributes"]
    assert [commit.title for commit in api.list_repo_commits("org/new")] == ["initial commit"]


def test_creating_a_repo_twice_needs_exist_ok(hub: Hub, hub_login: Token, sha: str) -> None:
    with pytest.raises(HfHubHTTPError) as refusal:
        api.create_repo(REPO)
    assert status_of(refusal) == 409
    assert api.create_repo(REPO, exist_ok=True).repo_id == REPO
    assert hub.heads(REPO) == {"main": sha}


def test_a_deleted_repo_is_gone(hub: Hub, hub_login: Token, sha: str) -> None:
    api.delete_repo(REPO)
    assert not api.repo_exists(REPO)
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo(REPO)
    api.delete_repo(REPO, missing_ok=True)


def test_branches_start_at_a_branch_a_tag_or_a_sha(hub: Hub, hub_login: Token, sha: str) -> None:
    hub.tag(REPO, "v1", at=sha)
    newer = hub.commit(REPO, {"more.txt": b"more"})
    api.create_branch(REPO, branch="plain")
    api.create_branch(REPO, branch="from/tag", revision="v1")
    api.create_branch(REPO, branch="from-sha", revision=sha)
    api.create_branch(REPO, branch="from-branch", revision="from/tag")
    expected = {"main": newer, "plain": newer, "from/tag": sha, "from-sha": sha, "from-branch": sha}
    assert hub.heads(REPO) == expected
    refs = api.list_repo_refs(REPO)
    assert {ref.name: ref.target_commit for ref in refs.branches} == expected
    assert [(ref.name, ref.ref, ref.target_commit) for ref in refs.tags] == [
        ("v1", "refs/tags/v1", sha)
    ]


def test_an_existing_branch_is_refused_and_stays(hub: Hub, hub_login: Token, sha: str) -> None:
    hub.branch(REPO, "b", at=sha)
    hub.commit(REPO, {"more.txt": b"more"})
    with pytest.raises(HfHubHTTPError) as refusal:
        api.create_branch(REPO, branch="b")
    assert status_of(refusal) == 409
    api.create_branch(REPO, branch="b", exist_ok=True)
    assert hub.heads(REPO)["b"] == sha


def test_branches_are_deleted_but_not_main(hub: Hub, hub_login: Token, sha: str) -> None:
    hub.branch(REPO, "a/b")
    api.delete_branch(REPO, branch="a/b")
    with pytest.raises(RevisionNotFoundError):
        api.delete_branch(REPO, branch="a/b")
    with pytest.raises(HfHubHTTPError):
        api.delete_branch(REPO, branch="main")
    assert hub.heads(REPO) == {"main": sha}


@pytest.mark.parametrize("name", ["has space", "a..b", "ends/", "x.lock", "what?", "refs/heads/x"])
def test_names_that_git_refuses_are_refused(
    hub: Hub, hub_login: Token, sha: str, name: str
) -> None:
    with pytest.raises(BadRequestError):
        api.create_branch(REPO, branch=name)
    with pytest.raises(BadRequestError):
        api.create_tag(REPO, tag=name)
    assert hub.heads(REPO) == {"main": sha}


def test_tags_are_made_once_and_deleted(hub: Hub, hub_login: Token, sha: str) -> None:
    api.create_tag(REPO, tag="v1", revision=sha)
    with pytest.raises(HfHubHTTPError) as refusal:
        api.create_tag(REPO, tag="v1")
    assert status_of(refusal) == 409
    api.create_tag(REPO, tag="v1", exist_ok=True)
    assert api.model_info(REPO, revision="v1").sha == sha
    api.delete_tag(REPO, tag="v1")
    assert api.list_repo_refs(REPO).tags == []


def test_unknown_revisions_are_named_as_such(hub: Hub, hub_login: Token, sha: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: api.model_info(REPO, revision="step_9"),
        lambda: api.list_repo_files(REPO, revision="step_9"),
        lambda: api.list_repo_commits(REPO, revision="step_9"),
        lambda: api.create_branch(REPO, branch="b", revision="step_9"),
        lambda: hf_hub_download(REPO, "config.json", revision="step_9"),
        lambda: snapshot_download(REPO, revision="0" * 39 + "1"),
        lambda: api.upload_file(
            path_or_fileobj=b"x", path_in_repo="x", repo_id=REPO, revision="step_9"
        ),
    ]
    for call in calls:
        with pytest.raises(RevisionNotFoundError):
            call()


# listings


def test_a_tree_comes_in_pages(hub: Hub) -> None:
    hub.commit(REPO, {f"d{i}/file{j}.txt": b"x" for i in range(3) for j in range(4)})
    hub.page_size = 4
    files = api.list_repo_files(REPO)
    assert len(files) == 13
    assert len(hub.requests("/tree/")) == 4
    top = {entry.path for entry in api.list_repo_tree(REPO)}
    assert top == {".gitattributes", "d0", "d1", "d2"}
    below = {entry.path for entry in api.list_repo_tree(REPO, "d1", recursive=True)}
    assert below == {f"d1/file{j}.txt" for j in range(4)}
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(REPO, "d7"))


def test_pages_of_a_revision_with_a_slash_follow_each_other(hub: Hub) -> None:
    hub.commit(REPO, {f"{i}.txt": b"x" for i in range(5)}, branch="ckpt/50")
    hub.page_size = 2
    assert len(api.list_repo_files(REPO, revision="ckpt/50")) == 6


def test_commits_come_in_pages_newest_first(hub: Hub) -> None:
    for step in range(0, 120, 10):
        hub.commit(REPO, {"s.txt": str(step)}, message=f"Training in progress, step {step}")
    hub.commits_page_size = 5
    titles = [commit.title for commit in api.list_repo_commits(REPO)]
    assert titles[0] == "Training in progress, step 110"
    assert titles[-1] == "initial commit"
    assert len(titles) == 13
    assert len(hub.requests("/commits/")) == 3


def test_a_tree_tells_sizes_hashes_and_last_commits(hub: Hub, sha: str) -> None:
    hub.commit(REPO, {"config.json": b"{ }"}, message="second")
    entries = {
        entry.path: entry
        for entry in api.list_repo_tree(REPO, recursive=True, expand=True)
        if isinstance(entry, RepoFile)
    }
    weights, config = entries["model.safetensors"], entries["config.json"]
    assert weights.lfs is not None
    assert (weights.size, weights.lfs.size) == (len(WEIGHTS), len(WEIGHTS))
    assert config.lfs is None
    changes = [entry.last_commit for entry in (weights, config)]
    assert [change and change.title for change in changes] == ["commit", "second"]
    found = api.get_paths_info(REPO, ["config.json", "absent", "model.safetensors"])
    assert found[0].path == "config.json"
    assert [entry.blob_id for entry in found if isinstance(entry, RepoFile)] == [
        config.blob_id,
        weights.blob_id,
    ]


def test_model_info_reads_the_card_and_the_weights(hub: Hub) -> None:
    header = {"w": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}}
    text = json.dumps(header).encode()
    card = (
        "---\nlicense: mit\nbase_model: org/base\nbase_model_relation: merge\ntags: [relex]\n---\n"
    )
    files: dict[str, bytes | str] = {
        "README.md": card,
        "config.json": '{"model_type": "qwen2", "hidden_size": 8}',
        "model.safetensors": len(text).to_bytes(8, "little") + text + bytes(12),
    }
    sha = hub.commit(REPO, files, branch="step_1")
    info = api.model_info(REPO, revision="step_1", files_metadata=True)
    assert info.sha == sha
    assert info.card_data is not None
    assert info.card_data.base_model == "org/base"
    assert {"relex", "license:mit", "base_model:merge:org/base"} <= set(info.tags or [])
    assert info.config == {"model_type": "qwen2"}
    assert info.safetensors is not None
    assert info.safetensors.parameters == {"BF16": 6}
    sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or []}
    assert sizes["README.md"] == len(card)
    assert api.model_info(REPO, expand=["sha", "gated"]).siblings is None


# other clients


def test_concurrent_commits_all_arrive(hub: Hub, hub_login: Token, sha: str) -> None:
    def push(number: int) -> None:
        api.upload_file(path_or_fileobj=b"x", path_in_repo=f"{number}.txt", repo_id=REPO)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(hub.history(REPO)) == 10
    assert len(hub.files(REPO)) == 10


def test_transformers_loads_a_revision(hub: Hub, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=32,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = Qwen2ForCausalLM(config)
    model.save_pretrained(tmp_path)
    hub.commit_folder(REPO, tmp_path, branch="step_1")
    loaded = AutoModelForCausalLM.from_pretrained(REPO, revision="step_1")
    expected = model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    assert not hub.requests(lambda entry: entry.route == "")


def test_a_client_in_another_process_finds_the_hub(hub: Hub, sha: str, tmp_path: Path) -> None:
    hub.repos[REPO].private = True
    code = f"from huggingface_hub import hf_hub_download as d; print(d({REPO!r}, 'config.json'))"
    environment = {"PATH": os.environ["PATH"], **hub.env(tmp_path, WRITE_TOKEN)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).read_bytes() == b"{}"
    assert done.stdout.startswith(str(tmp_path))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The endpoint of `python -m tests.fake_hub.serve` with a folder of two steps."""
    for step in (1, 2):
        folder = tmp_path / f"step_{step}"
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(bytes([step]) * 1000)
    command = [sys.executable, "-m", "tests.fake_hub.serve", "--repo", f"{REPO}={tmp_path}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


def test_folders_are_served_as_revisions_from_another_process(hub: Hub, served: str) -> None:
    other = HfApi(endpoint=served)
    assert {ref.name for ref in other.list_repo_refs(REPO).branches} == {"main", "step_1", "step_2"}
    path = other.hf_hub_download(REPO, "model.safetensors", revision="step_2")
    assert Path(path).read_bytes() == bytes([2]) * 1000
    lines = [json.loads(line) for line in urllib.request.urlopen(f"{served}/_log")]
    assert [line["sent"] for line in lines if line["route"] == "cdn"] == [1000]
    assert not hub.requests()
