"""``publish-series`` refuses what cannot work, before anything is uploaded, and says what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fake_hub import Fault, Hub
from tests.fake_hub.access import Token
from tests.fake_hub.building import READ_TOKEN
from tests.support.local_runs import make_run
from tests.support.models import Series, make_config, make_state, write_model
from tests.support.terminal import Command

REPO = "tester/series"
WRITES = r"^(POST|PUT|DELETE|PATCH) "


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, Series]:
    return make_run(tmp_path)


@pytest.mark.parametrize(
    "text", ["step", "step_{n}", "{step}_{step}", "step {step}", "{step:x}", "{step!r", "a..{step}"]
)
def test_a_format_that_names_no_revision_is_refused(
    hub: Hub, hub_login: Token, run: tuple[Path, Series], relex: Command, text: str
) -> None:
    done = relex("publish-series", run[0], REPO, "--revision-format", text)
    assert done.code == 1
    assert "--revision-format" in done.err
    assert not hub.requests()


@pytest.mark.parametrize("repo", ["no-namespace", "a/b/c", "a/-b", "a/b--c", "ä/b"])
def test_a_name_that_is_no_repo_id_is_refused(
    hub: Hub, hub_login: Token, run: tuple[Path, Series], relex: Command, repo: str
) -> None:
    done = relex("publish-series", run[0], repo)
    assert done.code == 1
    assert "namespace/" in done.err
    assert not hub.requests(WRITES)


def test_a_name_that_the_hub_refuses_is_told_with_its_reason(
    hub: Hub, hub_login: Token, run: tuple[Path, Series], relex: Command
) -> None:
    hub.faults.add(Fault("POST /api/repos/create", status=400, message="name is reserved"))
    done = relex("publish-series", run[0], REPO)
    assert done.code == 1
    assert f"{REPO}: the Hub refuses" in done.err
    assert "name is reserved" in done.err


@pytest.mark.parametrize("exists", [True, False])
def test_a_token_that_may_not_write_is_found_before_anything_is_hashed_or_uploaded(
    hub: Hub,
    run: tuple[Path, Series],
    monkeypatch: pytest.MonkeyPatch,
    exists: bool,
    relex: Command,
) -> None:
    if exists:
        hub.create_repo(REPO)
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    hashed: list[object] = []
    monkeypatch.setattr("huggingface_hub.lfs.UploadInfo.from_path", hashed.append)
    done = relex("publish-series", run[0], REPO, "--quiet")
    assert done.code == 1
    assert "may not write" in done.err
    assert READ_TOKEN not in done.err
    assert not hashed
    assert not hub.requests(r"PUT |/batch|/commit/|/branch/")


def test_without_a_token_nothing_is_asked(
    hub: Hub, run: tuple[Path, Series], relex: Command
) -> None:
    done = relex("publish-series", run[0], REPO)
    assert done.code == 1
    assert "hf auth login" in done.err
    assert not hub.requests()


def test_bad_folders_are_refused_before_any_request(
    hub: Hub, hub_login: Token, run: tuple[Path, Series], relex: Command, tmp_path: Path
) -> None:
    folder, _ = run
    (tmp_path / "empty").mkdir()
    cases = [
        ((tmp_path / "empty", REPO), "no checkpoints"),
        ((tmp_path / "gone", REPO), "not a folder"),
        ((folder, REPO, "--pattern", "checkpoint"), "no group"),
        ((folder, REPO, "--observe", "7"), "no such step"),
        ((folder, REPO, "--observe", "some"), "no choice of steps"),
        ((folder, REPO, "--until-step", "7"), "--watch"),
    ]
    for arguments, message in cases:
        done = relex("publish-series", *arguments)
        assert (done.code, message in done.err) == (1, True), done.err
    for weights in folder.glob("*/model.safetensors"):
        weights.unlink()
    done = relex("publish-series", folder, REPO)
    assert done.code == 1
    assert "no weights" in done.err
    assert not hub.requests()


def test_a_checkpoint_without_weights_is_left_out_and_told(
    hub: Hub, hub_login: Token, run: tuple[Path, Series], relex: Command
) -> None:
    (run[1].checkpoints[1] / "model.safetensors").unlink()
    done = relex("publish-series", run[0], REPO)
    assert done.code == 0
    assert "checkpoint-10 was left out" in done.err
    assert set(hub.heads(REPO)) == {"main", "step_5", "step_15"}


def test_a_checkpoint_that_is_not_whole_is_refused_with_the_remedy(
    hub: Hub, hub_login: Token, run: tuple[Path, Series], relex: Command
) -> None:
    (run[1].checkpoints[2] / "tokenizer.json").write_text('{"version": "1.0", "tru')
    done = relex("publish-series", run[0], REPO)
    assert done.code == 1
    assert re.search(r"checkpoint-15 is not whole: tokenizer\.json.*--watch.*--observe", done.err)
    assert not hub.requests()


def test_a_tag_of_that_name_is_refused(
    hub: Hub, hub_login: Token, run: tuple[Path, Series], relex: Command
) -> None:
    hub.create_repo(REPO)
    hub.tag(REPO, "step_10")
    done = relex("publish-series", run[0], REPO, "--quiet")
    assert done.code == 1
    assert "tag step_10" in done.err
    assert set(hub.heads(REPO)) == {"main"}


def test_a_base_that_does_not_fit_or_is_not_there_is_refused_before_any_upload(
    hub: Hub, hub_login: Token, run: tuple[Path, Series], relex: Command, tmp_path: Path
) -> None:
    config = make_config("qwen2", hidden_size=32)
    other = write_model(tmp_path / "other", config, make_state(config))
    for base, message in ((other, "hidden_size"), ("org/typo", "org/typo")):
        done = relex("publish-series", run[0], REPO, "--base", base)
        assert (done.code, message in done.err) == (1, True), done.err
    assert not hub.requests(WRITES)
