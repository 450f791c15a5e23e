"""pytest fixtures for the test Hub.

huggingface_hub reads `HF_ENDPOINT`, `HF_HOME` and the like when it is imported. So one server is
started, and the environment set, before anything imports it; each test gets this server emptied.
In `tests/conftest.py`, before all other imports:

    from tests.fake_hub.fixtures import start_before_imports

    start_before_imports()

    from tests.fake_hub.fixtures import hub, hub_login, no_waiting, offline  # noqa: E402, F401
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fake_hub.access import Token
from tests.fake_hub.building import WRITE_TOKEN
from tests.fake_hub.server import Hub

_FROM_OUTSIDE = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_TOKEN_PATH",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_OIDC_RESOURCE",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN",
)
_session: list[Hub] = []


def start_before_imports() -> Hub:
    """Start the session's Hub and point this process and its children at it.

    Raises:
        RuntimeError: huggingface_hub is imported already, so it would talk to the real Hub.
    """
    if _session:
        return _session[0]
    if "huggingface_hub" in sys.modules:
        raise RuntimeError("huggingface_hub was imported before the test Hub was started")
    folder = Path(tempfile.mkdtemp(prefix="relex-hub-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    hub = Hub(folder / "uploads").start()
    for name in _FROM_OUTSIDE:
        os.environ.pop(name, None)
    os.environ.update(hub.env(folder / "home"))
    _session.append(hub)
    return hub


@contextmanager
def emptied_hub() -> Iterator[Hub]:
    """The session's Hub, empty, with an empty client cache.

    Afterwards it fails if the test Hub itself crashed.
    """
    from relex_merge.hub import contact

    hub = start_before_imports()
    hub.reset()
    contact.first_answer.cache_clear()
    home = Path(os.environ["HF_HOME"])
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    yield hub
    assert not hub.crashes, "\n".join(hub.crashes)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The Hub, empty, with an empty client cache, and nobody logged in."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with emptied_hub() as hub:
        yield hub


@pytest.fixture
def hub_login(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Token:
    """Logs this process (and its children) in with the write token; returns it."""
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    return hub.tokens[WRITE_TOKEN]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `HF_HUB_OFFLINE=1` does, in this process and its children."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Requests are repeated at once; returns the list of seconds that were to be waited.

    By huggingface_hub and by relex_merge.hub; the test Hub itself keeps real time.
    """
    from huggingface_hub import file_download
    from huggingface_hub.utils import _http

    from relex_merge.hub import contact, errors, ranges

    waits: list[float] = []
    clock: Any = types.SimpleNamespace(**vars(time))
    clock.sleep = waits.append
    for module in (_http, file_download, contact, errors, ranges):
        monkeypatch.setattr(module, "time", clock)
    return waits
