"""A series on the test Hub: a base repo, and a run with a branch for each step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import relex_merge
from tests.fake_hub import Hub
from tests.support.models import STEPS, TEMPLATE, Series, make_series, write_tokenizer

RUN = "org/run"
BASE = "org/base-1.5B"
CARD = "---\nlicense: mit\n---\n# the base\n"
STREAMS = pytest.mark.parametrize("stream", [True, False], ids=["in ranges", "through the cache"])


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """What the Hub holds, on this disk: two shards each. Not to be changed."""
    series = make_series(tmp_path_factory.mktemp("hub"), shards=2)
    (series.base / "README.md").write_text(CARD)
    write_tokenizer(series.checkpoints[-1], TEMPLATE)
    return series


@pytest.fixture
def pins(hub: Hub, local: Series) -> dict[str, str]:
    """The series on the Hub, a branch for each step; reference -> sha."""
    found = {BASE: hub.commit_folder(BASE, local.base)}
    for step, folder in zip(local.steps, local.checkpoints, strict=True):
        found[f"{RUN}@step_{step}"] = hub.commit_folder(RUN, folder, branch=f"step_{step}")
    return found


def recipe(*references: str, **changes: Any) -> dict[str, Any]:
    return {
        "merge_method": "relex",
        "base_model": BASE,
        "models": [{"model": r} for r in references or [f"{RUN}@step_{s}" for s in STEPS]],
        "parameters": {"target_step": 20},
        **changes,
    }


def run(out: Path, stream: bool | None = None, *references: str, **changes: Any) -> Any:
    made = recipe(*references, **changes)
    return relex_merge.extrapolate(made, out, stream=stream, quiet=True)
