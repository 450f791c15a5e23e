"""A fifth of all requests fails, in seven ways: run and push do what they do without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fake_hub import Hub
from tests.fake_hub.access import Token
from tests.support.flaky import make_flaky
from tests.support.hub_series import RUN, STREAMS, recipe
from tests.support.models import write_recipe
from tests.support.outputs import contents
from tests.support.terminal import Command

SHARE = 0.2
pytestmark = pytest.mark.usefixtures("no_figure")


@pytest.fixture
def clean(
    relex: Command, hub: Hub, hub_login: Token, pins: dict[str, str], tmp_path: Path
) -> Callable[[bool], tuple[dict[str, bytes], dict[str, bytes]]]:
    """Files of the output and of its revision, from a Hub without faults; emptied again."""

    def call(stream: bool) -> tuple[dict[str, bytes], dict[str, bytes]]:
        out = tmp_path / "clean" / "out"
        out.parent.mkdir()
        path = write_recipe(tmp_path / "r.yml", recipe())
        how = "--stream" if stream else "--no-stream"
        assert relex("run", "--yes", path, out, how, "--push-to", "tester/run").code == 0
        return contents(out), hub.files("tester/run", "relex-step-20")

    return call


@STREAMS
def test_run_and_push_are_the_same(
    stream: bool,
    relex: Command,
    hub: Hub,
    clean: Callable[[bool], tuple[dict[str, bytes], dict[str, bytes]]],
    tmp_path: Path,
    no_waiting: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output, pushed = clean(stream)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    before = hub.heads(RUN)
    hub.log.clear()
    faults = make_flaky(hub, monkeypatch, share=SHARE)
    how = "--stream" if stream else "--no-stream"
    done = relex("run", "--yes", tmp_path / "r.yml", tmp_path / "out", how, "--push-to", RUN)
    assert done.code == 0, done.err
    hub.faults.clear()
    assert contents(tmp_path / "out") == output
    there = hub.files(RUN, "relex-step-20")
    assert {name: content for name, content in there.items() if name != "README.md"} == {
        name: content for name, content in pushed.items() if name != "README.md"
    }
    assert there["README.md"] == pushed["README.md"].replace(b"tester/run", RUN.encode())
    now = hub.heads(RUN)
    # Its main was empty, and has a card now.
    assert {k: v for k, v in now.items() if k != "relex-step-20"} == {**before, "main": now["main"]}
    assert len(hub.history(RUN, "relex-step-20")) == len(hub.history(RUN))  # one commit each
    assert sum(fault.fired for fault in faults.values()) > len(hub.requests()) / 10
