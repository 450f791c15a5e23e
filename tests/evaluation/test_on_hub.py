"""A series on the Hub: base and last checkpoint are brought here, the others read in ranges."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import relex_merge
from relex_merge.errors import RelexError
from tests.fake_hub import Hub
from tests.support.hub_series import RUN, recipe
from tests.support.models import Series

LINES = [{"prompt": f"a{i}", "response": "b c d e"} for i in range(4)]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return file


def kls(evaluation: Any) -> dict[str, float]:
    function = evaluation["function"]
    return {e["model"]: e["kl"] for e in [*function["candidates"], *function["others"]]}


@pytest.mark.parametrize("stream", [None, True, False])
def test_a_series_on_the_hub_gives_what_it_gives_on_the_disk(
    stream: bool | None, local: Series, pins: dict[str, str], text: Path
) -> None:
    here = relex_merge.evaluate(local.recipe(20), text=text, scales=[0.5], quiet=True)
    found = relex_merge.evaluate(
        recipe(), text=text, scales=[0.5], every=2, stream=stream, quiet=True
    )
    on_hub = kls(found)
    assert "observed step 2" in on_hub
    assert {name: on_hub[name] for name in kls(here)} == pytest.approx(kls(here))


def test_outputs_whose_series_left_the_hub(
    hub: Hub, pins: dict[str, str], text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    relex_merge.extrapolate(recipe(), out, figure=False, quiet=True)
    assert kls(relex_merge.evaluate(out, text=text, quiet=True))
    hub.reset()
    home = Path(os.environ["HF_HOME"])
    shutil.rmtree(home)
    home.mkdir()
    with pytest.raises(RelexError, match=rf"last observed checkpoint {RUN}@step_9 is needed"):
        relex_merge.evaluate(out, text=text, quiet=True)
