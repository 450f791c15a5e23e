"""Fixtures that all tests share: a plugin that ``tests/conftest.py`` loads where tests run."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch

from tests.fake_hub.fixtures import hub, hub_login, no_waiting, offline
from tests.support.hub_series import local, pins
from tests.support.models import Series, make_series
from tests.support.once import made_once
from tests.support.refusals import mine, refuse
from tests.support.sharded_runs import ShardedRuns, make_runs
from tests.support.terminal import Command, Outcome

__all__ = ["hub", "hub_login", "local", "mine", "no_waiting", "offline", "pins", "refuse"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``gpu`` are for machines that have one."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def relex(capsys: pytest.CaptureFixture[str]) -> Command:
    """``relex-merge`` in this process: arguments in, outcome out."""

    def call(*arguments: object) -> Outcome:
        from relex_merge.cli.main import main

        if arguments[0] == "run" and "--figure" not in arguments:
            arguments = (*arguments, "--no-figure")  # drawing takes longer than the run
        capsys.readouterr()
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """Five float32 checkpoints of a tiny Qwen2 and its base. Not to be changed."""
    return make_series(tmp_path_factory.mktemp("series"))


@pytest.fixture(scope="session")
def sharded_runs(tmp_path_factory: pytest.TempPathFactory) -> ShardedRuns:
    """Runs in every layout of shards. Not to be changed."""
    return made_once(tmp_path_factory, "sharded", make_runs)


@pytest.fixture
def no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if matplotlib were not installed: drawing takes longer than a run of these tests."""
    monkeypatch.setattr("relex_merge.api.find_spec", lambda name: None)


@pytest.fixture(autouse=True)
def _our_loggers_speak() -> None:
    """No test depends on what another one, or a library that it used, silenced."""
    logging.disable(logging.NOTSET)
    logging.getLogger().setLevel(logging.WARNING)
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("relex_merge") and isinstance(logger, logging.Logger):
            logger.disabled = False


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    """No test depends on how many threads another one set."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
