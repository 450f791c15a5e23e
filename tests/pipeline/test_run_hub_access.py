"""Private and gated repos, offline mode, and what is pushed where."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from relex_merge.errors import RelexError
from tests.fake_hub import Hub
from tests.fake_hub.access import Token
from tests.fake_hub.building import WRITE_TOKEN
from tests.support.hub_series import BASE, RUN, STREAMS, recipe, run
from tests.support.models import Series, expected, read_weights, worst_error, write_recipe
from tests.support.terminal import Command

FLOAT32 = 1e-6
pytestmark = pytest.mark.usefixtures("no_figure")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# access


@STREAMS
def test_private_repos_are_read_with_a_token_and_not_without(
    stream: bool, hub: Hub, pins: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos[RUN].private = True
    with pytest.raises(RelexError) as caught:
        run(tmp_path / "out", stream)
    assert RUN in str(caught.value)
    assert "hf auth login" in str(caught.value)
    assert not (tmp_path / "out").exists()
    time.sleep(1)  # requests of the run that failed may still be under way
    hub.log.clear()
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    run(tmp_path / "out", stream)
    assert all(entry.has_token for entry in hub.requests("/api/models/"))
    assert not any(entry.has_token for entry in hub.requests("/cdn/"))


@STREAMS
def test_gated_repos_say_how_to_get_in(
    stream: bool, hub: Hub, pins: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos[BASE].gated = "manual"
    stranger = hub.add_token("hf_StrangerTokenDoNotPrint", orgs=())
    for token in (None, stranger.value):
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(RelexError) as caught:
            run(tmp_path / "out", stream)
        assert BASE in str(caught.value)
        assert "gated" in str(caught.value)
        assert "ask for access" in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    run(tmp_path / "out", stream)


def test_a_private_push(
    relex: Command, hub: Hub, hub_login: Token, pins: dict[str, str], tmp_path: Path
) -> None:
    path = write_recipe(tmp_path / "r.yml", recipe())
    done = relex(
        "run",
        "--yes",
        path,
        tmp_path / "out",
        "--push-to",
        "tester/new",
        "--private",
        "--revision",
        "mine",
    )
    assert done.code == 0, done.err
    assert hub.repos["tester/new"].private
    assert hub.files("tester/new", "mine").keys() == names(tmp_path / "out")


def test_a_pull_request_instead(
    relex: Command, hub: Hub, hub_login: Token, pins: dict[str, str], tmp_path: Path
) -> None:
    path = write_recipe(tmp_path / "r.yml", recipe())
    before = hub.heads(RUN)
    done = relex("run", "--yes", path, tmp_path / "out", "--push-to", RUN, "--create-pr")
    assert done.code == 0, done.err
    assert hub.heads(RUN) == before
    assert len(hub.repos[RUN].pulls) == 1


def test_an_existing_revision_is_refused_and_replaced_by_force(
    relex: Command, hub: Hub, hub_login: Token, pins: dict[str, str], tmp_path: Path
) -> None:
    path = write_recipe(tmp_path / "r.yml", recipe())
    hub.commit(RUN, {"mine.txt": "mine"}, branch="relex-step-20")
    done = relex("run", "--yes", path, tmp_path / "out", "--push-to", RUN)
    assert done.code == 1
    assert "relex-step-20" in done.err
    assert "--force" in done.err
    assert "mine.txt" in hub.files(RUN, "relex-step-20")
    done = relex("run", "--yes", path, tmp_path / "out", "--push-to", RUN, "--force")
    assert done.code == 0, done.err
    assert hub.files(RUN, "relex-step-20").keys() == names(tmp_path / "out")


# offline


def test_offline_everything_comes_from_the_cache(
    hub: Hub, pins: dict[str, str], local: Series, tmp_path: Path, offline_now: Any
) -> None:
    run(tmp_path / "online", False)
    hub.log.clear()
    offline_now()
    result = run(tmp_path / "out")
    assert not hub.requests()
    assert worst_error(read_weights(result.out), expected(local)) < FLOAT32
    assert [c["sha"] for c in result.report["checkpoints"]] == list(pins.values())[1:]


@pytest.mark.parametrize("seen", ["nothing", "all but the weights"])
def test_offline_what_is_not_in_the_cache_is_named(
    seen: str, hub: Hub, pins: dict[str, str], tmp_path: Path, offline_now: Any
) -> None:
    if seen != "nothing":
        run(tmp_path / "online", True)
    offline_now()
    with pytest.raises(RelexError) as caught:
        run(tmp_path / "out")
    assert BASE in str(caught.value) or RUN in str(caught.value)
    assert "HF_HUB_OFFLINE" in str(caught.value)


@pytest.fixture
def offline_now(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Goes offline when called."""
    from huggingface_hub import constants

    def leave() -> None:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    return leave
