"""A Hub that cannot be reached: one line within seconds, and nothing done."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from relex_merge.errors import RelexError
from relex_merge.hub import contact, download
from tests.fake_hub import Fault, Hub
from tests.fake_hub.access import Token
from tests.support.hub_series import BASE, RUN, recipe
from tests.support.models import write_recipe
from tests.support.outputs import make_output
from tests.support.terminal import Command

SOON = 10.0  # seconds


@pytest.fixture(params=["refused", "silent"])
def away(
    request: pytest.FixtureRequest, hub: Hub, hub_login: Token, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The address of a Hub that refuses connections, or never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "silent":
            listener.listen(64)
            monkeypatch.setattr(contact, "_TIMEOUT", 0.1)
        monkeypatch.setattr(contact, "_PAUSES", (0.05, 0.1))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        yield address


@pytest.mark.parametrize("command", ["run", "inspect", "recipe", "push", "publish-series"])
def test_each_command_says_so_in_one_line_and_soon(
    away: str,
    command: str,
    relex: Command,
    tmp_path: Path,
    local: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = write_recipe(tmp_path / "r.yml", recipe())
    arguments: dict[str, tuple[object, ...]] = {
        "run": (path, tmp_path / "new"),
        "inspect": (path,),
        "recipe": (RUN,),
        "push": (make_output(tmp_path / "out"), RUN),
        "publish-series": (local.base.parent, RUN),
    }
    caplog.set_level(logging.INFO)
    began = time.monotonic()
    done = relex(command, *arguments[command])
    assert time.monotonic() - began < SOON
    assert done.code == 1
    assert done.out == ""
    assert not (tmp_path / "new").exists()
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    assert f"{away}: no connection to the Hub" in lines[0]
    assert "HF_ENDPOINT" in lines[0]
    assert not [r for r in caplog.records if r.name.startswith(("huggingface", "relex_merge"))]


def test_many_references_do_not_make_it_longer(away: str, tmp_path: Path) -> None:
    from relex_merge.checkpoints.locate import locate

    began = time.monotonic()
    with pytest.raises(RelexError, match="no connection"):
        locate([BASE, *(f"{RUN}@step_{step}" for step in range(60))])
    assert time.monotonic() - began < 2


def test_a_hub_that_says_it_is_away(hub: Hub, no_waiting: list[float]) -> None:
    fault = hub.faults.add(Fault("HEAD /$", times=None, status=503))
    with pytest.raises(RelexError, match=r"org/run: the Hub at .* is away \(status 503\)"):
        download.pin(RUN, None)
    assert fault.fired == 4
    assert sum(no_waiting) < SOON
    assert len(hub.requests()) == 4


def test_a_hub_that_comes_back_in_time_is_asked_no_more(hub: Hub, no_waiting: list[float]) -> None:
    sha = hub.commit(RUN, {"config.json": b"{}"})
    hub.faults.add(Fault("HEAD /$", times=1, drop="before"))
    hub.faults.add(Fault("HEAD /$", after=1, times=2, status=502))
    for _ in range(3):
        assert download.pin(RUN, None).sha == sha
    assert len(hub.requests("HEAD /$")) == 4


def test_any_other_answer_will_do(hub: Hub, no_waiting: list[float]) -> None:
    """A mirror need not have a front page."""
    sha = hub.commit(RUN, {"config.json": b"{}"})
    for status in (200, 301, 401, 404, 405, 500):
        contact.first_answer.cache_clear()
        hub.faults.add(Fault("HEAD /$", status=status))
        assert download.pin(RUN, None).sha == sha
    assert not [seconds for seconds in no_waiting if seconds >= 0.5]  # of ours
