"""Pushes that fail: what is left behind, what a person is told, and that they can be repeated."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from relex_merge.errors import RelexError
from relex_merge.publishing.push import push
from tests.fake_hub.building import READ_TOKEN, WRITE_TOKEN
from tests.fake_hub.faults import Fault
from tests.fake_hub.server import Hub
from tests.support.outputs import REPO, REVISION, assert_holds, make_output, seed_series
from tests.support.terminal import interruptible


@pytest.fixture
def run_files(hub: Hub, hub_login: object) -> dict[str, bytes]:
    """Files of ``main`` of a repo that holds a training run."""
    return seed_series(hub)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return make_output(tmp_path / "out")


def test_a_refused_commit_leaves_no_branch_and_the_push_can_be_repeated(
    hub: Hub, run_files: dict[str, bytes], out: Path, no_waiting: list[float]
) -> None:
    before = hub.heads(REPO)
    fault = hub.faults.add(Fault("POST .*/commit/", times=None, status=500))
    with pytest.raises(RelexError, match=r"status 500.*repeat"):
        push(out, REPO)
    assert fault.fired > 1
    assert hub.heads(REPO) == before
    hub.faults.clear()
    push(out, REPO, quiet=True)
    assert_holds(hub, REVISION, out)
    assert len(hub.requests("PUT /lfs/")) == 2  # the two shards, once


def test_a_refused_branch_can_be_repeated(hub: Hub, run_files: dict[str, bytes], out: Path) -> None:
    hub.faults.add(Fault("POST .*/branch/", status=403, message="not today"))
    before = hub.heads(REPO)
    with pytest.raises(RelexError, match="not today"):
        push(out, REPO)
    assert hub.heads(REPO) == before
    push(out, REPO, quiet=True)
    assert_holds(hub, REVISION, out)


def test_a_refused_upload_names_the_file_and_leaves_nothing(
    hub: Hub, run_files: dict[str, bytes], out: Path
) -> None:
    before = hub.heads(REPO)
    hub.faults.add(Fault("PUT /lfs/", times=None, status=403, message="quota is used up"))
    with pytest.raises(RelexError, match=r"model-0000.*quota is used up"):
        push(out, REPO)
    assert hub.heads(REPO) == before
    assert not hub.requests("POST .*/(branch|commit)/")


@pytest.mark.parametrize(
    "request_line",
    [
        "GET /api/models/[^/]+/[^/]+$",
        "GET .*/refs",
        "POST .*/validate-yaml",
        "POST .*/preupload/",
        "POST .*/objects/batch",
        "PUT /lfs/",
        "GET .*/tree/",
        "POST .*/branch/",
        "POST .*/commit/",
    ],
)
def test_too_many_requests_are_repeated_after_the_time_the_hub_names(
    hub: Hub,
    run_files: dict[str, bytes],
    out: Path,
    no_waiting: list[float],
    request_line: str,
) -> None:
    limit = Fault(request_line, times=1, status=429, headers={"Retry-After": "7"})
    fault = hub.faults.add(limit)
    push(out, REPO, quiet=True)
    assert fault.fired == 1
    assert no_waiting in ([7.0], [8.0])  # huggingface_hub adds a second
    assert_holds(hub, REVISION, out)
    assert len(hub.history(REPO, REVISION)) == len(hub.history(REPO)) + 1


def test_creating_a_repo_is_repeated_after_the_time_the_hub_names(
    hub: Hub, hub_login: object, out: Path, no_waiting: list[float]
) -> None:
    headers = {"RateLimit": '"api";r=0;t=55'}
    hub.faults.add(Fault("POST /api/repos/create", status=429, headers=headers))
    push(out, "tester/new", quiet=True)
    assert no_waiting == [55.0]


@pytest.mark.parametrize("request_line", ["POST .*/branch/", "POST .*/commit/"])
def test_a_lost_answer_is_found_again(
    hub: Hub, run_files: dict[str, bytes], out: Path, no_waiting: list[float], request_line: str
) -> None:
    fault = hub.faults.add(Fault(request_line, drop="after"))
    result = push(out, REPO, quiet=True)
    assert fault.fired == 1
    assert hub.heads(REPO)[REVISION] == result.commit
    assert len(hub.history(REPO, REVISION)) == len(hub.history(REPO)) + 1
    assert_holds(hub, REVISION, out)


@pytest.mark.parametrize("request_line", ["PUT /lfs/", "POST .*/commit/"])
def test_what_others_commit_meanwhile_is_not_overwritten(
    hub: Hub, run_files: dict[str, bytes], out: Path, request_line: str
) -> None:
    hub.branch(REPO, REVISION)
    hub.faults.add(
        Fault(
            request_line,
            action=lambda: hub.commit(REPO, {"theirs.txt": "theirs"}, branch=REVISION),
        )
    )
    with pytest.raises(RelexError, match="has changed"):
        push(out, REPO, force=True)
    assert hub.files(REPO, REVISION) == {**run_files, "theirs.txt": b"theirs"}


def test_a_main_that_moves_during_the_upload_takes_no_file_out_of_the_output(
    hub: Hub, run_files: dict[str, bytes], out: Path
) -> None:
    # The client leaves out what it is told the branch holds already; the new main holds it, the
    # commit that the push started from does not.
    same = {"tokenizer.json": out / "tokenizer.json"}
    hub.faults.add(Fault("POST .*/preupload/", action=lambda: hub.commit(REPO, same)))
    with pytest.raises(RelexError, match="has changed"):
        push(out, REPO)
    assert REVISION not in hub.heads(REPO)
    push(out, REPO, quiet=True)
    assert_holds(hub, REVISION, out)


def test_a_branch_that_others_filled_is_not_deleted(
    hub: Hub, run_files: dict[str, bytes], out: Path, no_waiting: list[float]
) -> None:
    def interfere() -> None:
        hub.commit(REPO, {"theirs.txt": "theirs"}, branch=REVISION)

    hub.faults.add(Fault("POST .*/commit/", action=interfere))
    with pytest.raises(RelexError, match="has changed"):
        push(out, REPO)
    assert hub.files(REPO, REVISION)["theirs.txt"] == b"theirs"


def push_elsewhere(hub: Hub, out: Path, tmp_path: Path) -> subprocess.Popen[bytes]:
    """The same push in another process, which can be killed."""
    code = f"from relex_merge.publishing.push import push; push({str(out)!r}, {REPO!r}, quiet=True)"
    env = {**os.environ, **hub.env(tmp_path / "home", WRITE_TOKEN)}
    with interruptible():
        return subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.DEVNULL)


def test_a_push_killed_during_the_upload_can_be_repeated(
    hub: Hub, run_files: dict[str, bytes], out: Path, tmp_path: Path
) -> None:
    before = hub.heads(REPO)
    process: list[subprocess.Popen[bytes]] = []
    hub.after(1, "POST .*/verify", lambda: process[0].send_signal(signal.SIGKILL))
    process.append(push_elsewhere(hub, out, tmp_path))
    assert process[0].wait(60) == -signal.SIGKILL
    assert hub.heads(REPO) == before
    push(out, REPO, quiet=True)
    assert_holds(hub, REVISION, out)
    assert len(hub.requests("PUT /lfs/")) == 2


def test_an_interrupt_during_the_commit_leaves_no_branch(
    hub: Hub, run_files: dict[str, bytes], out: Path, tmp_path: Path
) -> None:
    before = hub.heads(REPO)
    process: list[subprocess.Popen[bytes]] = []
    hub.faults.add(
        Fault(
            "POST .*/commit/", drop="before", action=lambda: process[0].send_signal(signal.SIGINT)
        )
    )
    process.append(push_elsewhere(hub, out, tmp_path))
    assert process[0].wait(60) != 0
    assert hub.requests("POST .*/branch/")
    assert hub.heads(REPO) == before


@pytest.mark.parametrize("main_goes_on", [False, True])
def test_what_a_push_that_was_killed_before_its_commit_left_is_taken_over(
    hub: Hub, run_files: dict[str, bytes], out: Path, tmp_path: Path, main_goes_on: bool
) -> None:
    main = hub.heads(REPO)["main"]
    process: list[subprocess.Popen[bytes]] = []
    hub.faults.add(
        Fault(
            "POST .*/commit/", drop="before", action=lambda: process[0].send_signal(signal.SIGKILL)
        )
    )
    process.append(push_elsewhere(hub, out, tmp_path))
    assert process[0].wait(60) == -signal.SIGKILL
    assert hub.heads(REPO)[REVISION] == main
    if main_goes_on:
        hub.commit(REPO, {"later.txt": "later"})
    push(out, REPO, quiet=True)
    assert_holds(hub, REVISION, out)
    assert [commit.sha for commit in hub.history(REPO, REVISION)][1] == main


def test_no_token_wrong_token_and_read_token_upload_nothing(
    hub: Hub, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.commit(REPO, {"README.md": "# the run"})
    with pytest.raises(RelexError, match=r"hf auth login.*HF_TOKEN"):
        push(out, REPO)
    assert not hub.requests()
    with pytest.raises(RelexError, match=r"does not accept the token.*hf auth login") as wrong:
        push(out, REPO, token="hf_NobodysTokenAtAllNever")
    assert "Nobodys" not in str(wrong.value)
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    for repo in (REPO, "tester/new"):
        with pytest.raises(RelexError, match=r"may not write.*write access") as read:
            push(out, repo)
        assert READ_TOKEN not in str(read.value)
    assert not hub.requests("(PUT|POST) .*(/lfs/|/branch/|/commit/)")
    assert hub.heads(REPO).keys() == {"main"}


def test_a_repo_of_others_is_refused(hub: Hub, out: Path) -> None:
    stranger = hub.add_token("hf_AStrangersTokenWithWrite", user="stranger", orgs=())
    hub.create_repo("org/public")
    hub.create_repo("org/private", private=True)
    for repo in ("org/public", "org/private", "org/new"):
        with pytest.raises(RelexError, match=rf"{repo}.*may not write"):
            push(out, repo, token=stranger.value)
    assert not hub.requests("PUT ")
    assert "org/new" not in hub.repos


def test_a_token_in_the_answer_of_a_server_is_not_shown(
    hub: Hub, run_files: dict[str, bytes], out: Path
) -> None:
    hub.add_token("no-usual-token")
    message = f"bad {WRITE_TOKEN} or no-usual-token"
    hub.faults.add(Fault("POST .*/preupload/", times=None, status=400, message=message))
    with pytest.raises(RelexError, match=r"bad hf_\*\*\* or \*\*\*"):
        push(out, REPO, token="no-usual-token")


@pytest.mark.parametrize(
    ("status", "words"),
    [(403, "may not write"), (409, "conflict"), (413, "smaller shards"), (418, "status 418")],
)
def test_refusals_are_explained(
    hub: Hub, run_files: dict[str, bytes], out: Path, status: int, words: str
) -> None:
    hub.faults.add(Fault("POST .*/commit/", times=None, status=status, message="because"))
    with pytest.raises(RelexError, match=rf"{REPO}.*{words}.*") as error:
        push(out, REPO)
    assert "because" in str(error.value)
    assert REVISION not in hub.heads(REPO)


def test_a_gated_repo_says_to_ask_for_access(
    hub: Hub, run_files: dict[str, bytes], out: Path
) -> None:
    hub.faults.add(Fault("GET /api/models", status=403, code="GatedRepo"))
    with pytest.raises(RelexError, match="ask for access"):
        push(out, REPO)


def test_no_connection_is_one_message(
    hub: Hub, run_files: dict[str, bytes], out: Path, no_waiting: list[float]
) -> None:
    hub.faults.add(Fault(".", times=None, drop="before"))
    with pytest.raises(RelexError, match="no connection to the Hub"):
        push(out, REPO)


def test_offline_mode_is_named(
    hub: Hub, run_files: dict[str, bytes], out: Path, offline: None
) -> None:
    with pytest.raises(RelexError, match="HF_HUB_OFFLINE"):
        push(out, REPO)
    assert not hub.requests()
