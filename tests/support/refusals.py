"""What must hold whenever ``run`` refuses something, as fixtures for the tests of bad input."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.fake_hub import Hub
from tests.fake_hub.access import Token
from tests.fake_hub.building import WRITE_TOKEN
from tests.support.models import Series, write_recipe
from tests.support.terminal import Command

Refuse: TypeAlias = Callable[..., str]
PUBLISH = "tester/model"


@pytest.fixture
def mine(series: Series, tmp_path: Path) -> Series:
    """A copy of the series that the test may spoil."""
    root = Path(shutil.copytree(series.base.parent, tmp_path / "run"))
    checkpoints = tuple(root / c.name for c in series.checkpoints)
    return Series(root / "base", checkpoints, series.steps, series.base_state, series.states)


@pytest.fixture
def refuse(relex: Command, hub: Hub, hub_login: Token, tmp_path: Path) -> Refuse:
    """Runs a recipe that must be refused, with everything that must hold then; the message."""

    def call(recipe: dict[str, Any] | bytes, *options: object) -> str:
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        path = tmp_path / "recipe.yml"
        if isinstance(recipe, bytes):
            path.write_bytes(recipe)
        else:
            write_recipe(path, recipe)
        done = relex("run", path, work / "out", "--push-to", PUBLISH, *options)
        assert done.code == 1, done.err
        assert "Traceback" not in done.err
        messages = [line for line in done.err.splitlines() if line.startswith("error: ")]
        assert len(messages) == 1, done.err
        assert list(work.iterdir()) == []
        assert done.out == ""
        assert not hub.requests(r"^(POST|PUT|DELETE|PATCH) /")
        assert WRITE_TOKEN not in done.err
        return messages[0].removeprefix("error: ")

    return call


def sliced(recipe: dict[str, Any]) -> dict[str, Any]:
    """The same recipe written so that it goes through mergekit's own path."""
    sources = [{**entry, "layer_range": [0, 2]} for entry in recipe["models"]]
    sources.append({"model": recipe["base_model"], "layer_range": [0, 2]})
    rest = {key: value for key, value in recipe.items() if key != "models"}
    return {**rest, "slices": [{"sources": sources}]}
