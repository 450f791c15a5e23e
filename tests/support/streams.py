"""A series on the test Hub, streamed and from the disk; what the tests of streaming share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import relex_merge
from tests.fake_hub import Hub
from tests.fake_hub.log import Entry
from tests.support.models import STEPS, Series, make_series

RUN = "org/run"
BASE = "org/base"
WEIGHTS = r"GET /cdn/.*safetensors"
HEADERS = 2  # requests for the header of a file
FILES = 1 + len(STEPS)  # weight files of a series


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """Files so small that their bodies come through the client."""
    return make_series(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """Files of 2 MB and more, whose bodies are received from the socket."""
    return make_series(tmp_path_factory.mktemp("large"), hidden_size=64, vocab_size=8192)


@pytest.fixture(params=["small", "large"])
def series(request: pytest.FixtureRequest) -> Series:
    """Both ways in which bodies come."""
    found: Series = request.getfixturevalue(request.param)
    return found


def publish(hub: Hub, series: Series) -> None:
    """The series as revisions of one repo, and its base as another."""
    hub.commit_folder(BASE, series.base)
    for step, folder in zip(series.steps, series.checkpoints, strict=True):
        hub.commit_folder(RUN, folder, branch=f"step_{step}")


def recipe() -> dict[str, Any]:
    return {
        "merge_method": "relex",
        "base_model": BASE,
        "models": [{"model": f"{RUN}@step_{step}"} for step in STEPS],
        "parameters": {"target_step": 20},
    }


def streamed(out: Path, **how: Any) -> dict[str, bytes]:
    relex_merge.extrapolate(recipe(), out, stream=True, quiet=True, **how)
    return weights(out)


def on_disk(series: Series) -> dict[str, bytes]:
    """The same from the folders; computed once."""
    out = series.base.parent / "out"
    if not out.exists():
        relex_merge.extrapolate(series.recipe(20), out, quiet=True)
    return weights(out)


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("model*.safetensors")}


def stored(series: Series) -> int:
    """Bytes of all weight files of a series."""
    folders = (series.base, *series.checkpoints)
    return sum(p.stat().st_size for folder in folders for p in folder.glob("*.safetensors"))


def bounds(entry: Entry) -> tuple[int, int]:
    """First and last byte that a request asked for."""
    found = re.fullmatch(r"bytes=(\d+)-(\d+)", entry.range or "")
    assert found is not None, entry.line
    return int(found[1]), int(found[2])
