"""``run --push-to``: what would refuse the push is found before the run, not after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fake_hub import Hub
from tests.fake_hub.access import Token
from tests.fake_hub.building import READ_TOKEN
from tests.support.hub_series import RUN, recipe
from tests.support.models import write_recipe
from tests.support.terminal import Command

pytestmark = pytest.mark.usefixtures("no_figure")
CHANGES = r"^(PUT|DELETE|PATCH) |^POST .*/(commit|branch|batch|create|tag)"


@pytest.fixture
def path(pins: dict[str, str], tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "r.yml", recipe())


@pytest.fixture
def refused(relex: Command, hub: Hub, path: Path, tmp_path: Path) -> Any:
    """The message of a run that is refused before it reads anything."""

    def call(*options: object) -> str:
        hub.log.clear()
        done = relex("run", "--yes", path, tmp_path / "out", *options)
        assert done.code == 1
        assert done.out == ""
        assert not (tmp_path / "out").exists()
        assert not hub.requests("/cdn/|/resolve/")
        assert not hub.requests(CHANGES)
        return done.err

    return call


def test_without_a_token_nothing_is_asked(refused: Any, hub: Hub) -> None:
    assert "hf auth login" in refused("--push-to", RUN)
    assert not hub.requests()


@pytest.mark.parametrize("repo", [RUN, "tester/new"])
def test_a_token_that_may_only_read(
    refused: Any, monkeypatch: pytest.MonkeyPatch, repo: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    message = refused("--push-to", repo)
    assert "may not write" in message
    assert READ_TOKEN not in message


def test_a_token_that_the_hub_does_not_know(refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_NobodysTokenAtAllNever")
    assert "does not accept the token" in refused("--push-to", RUN)


def test_the_namespace_of_others(refused: Any, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = hub.add_token("hf_AStrangersTokenWithWrite", user="stranger", orgs=("club",))
    monkeypatch.setenv("HF_TOKEN", stranger.value)
    assert "may not write" in refused("--push-to", RUN)
    message = refused("--push-to", "org/new")
    assert "org/new does not exist, and stranger cannot create it" in message


def test_a_name_without_namespace(refused: Any, hub_login: Token) -> None:
    assert "write namespace/model" in refused("--push-to", "model")


def test_a_public_repo_for_a_private_push(refused: Any, hub_login: Token) -> None:
    assert "public repo" in refused("--push-to", RUN, "--private")


@pytest.mark.parametrize(
    ("options", "revision"),
    [
        ((), "relex-step-20"),
        (("--target-step", "30"), "relex-step-30"),
        (("--revision", "v1"), "v1"),
    ],
)
def test_a_revision_that_is_there(
    refused: Any, hub: Hub, hub_login: Token, options: tuple[str, ...], revision: str
) -> None:
    hub.commit(RUN, {"mine.txt": "mine"}, branch=revision)
    message = refused("--push-to", RUN, *options)
    assert f"has a revision {revision} already" in message
    assert "--force" in message


def test_a_tag_of_the_name(refused: Any, hub: Hub, hub_login: Token) -> None:
    hub.tag(RUN, "relex-step-20")
    assert "tag" in refused("--push-to", RUN, "--force")


def test_what_may_be_pushed_is_pushed(
    relex: Command, hub: Hub, hub_login: Token, path: Path, tmp_path: Path
) -> None:
    """A branch without a commit of its own, a repo that is still to be made, a pull request."""
    hub.branch(RUN, "relex-step-20")
    stranger = hub.add_token("hf_AStrangersTokenWithWrite", user="stranger", orgs=())
    assert stranger.value
    for number, options in enumerate(((RUN,), ("tester/new",), (RUN, "--create-pr"))):
        done = relex("run", "--yes", path, tmp_path / f"out-{number}", "--push-to", *options)
        assert done.code == 0, done.err
    # Three outputs, and two cards where main was empty.
    assert len(hub.requests("POST .*/commit/")) == 5


def test_other_merge_methods_need_a_name(
    relex: Command, hub: Hub, hub_login: Token, pins: dict[str, str], tmp_path: Path
) -> None:
    made = {**recipe(), "merge_method": "linear", "parameters": {"weight": 1}}
    path = write_recipe(tmp_path / "r.yml", made)
    done = relex("run", "--yes", path, tmp_path / "out", "--push-to", RUN)
    assert done.code == 2
    assert "--revision" in done.err
    assert not (tmp_path / "out").exists()
