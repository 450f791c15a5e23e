"""``inspect OUT`` says what the run itself said, whatever parameters the tensors had."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import relex_merge
from relex_merge.errors import RelexError
from tests.support.models import Series, make_series
from tests.support.refusals import sliced

pytestmark = pytest.mark.usefixtures("no_figure")
GRADIENTS = {
    "rank": {"rank": [1, 4]},
    "target_step": {"target_step": [14, 30]},
    "in a filter": {"rank": [{"filter": "mlp", "value": [1, 4]}, {"value": 2}]},
}


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """Four layers, eight checkpoints. Not to be changed."""
    return make_series(
        tmp_path_factory.mktemp("deep"), steps=tuple(range(1, 9)), num_hidden_layers=4
    )


def report_in(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "relex_report.json").read_text())
    return found


@pytest.mark.parametrize("what", GRADIENTS)
def test_the_same_report_with_gradients(what: str, deep: Series, tmp_path: Path) -> None:
    recipe = deep.recipe(16)
    recipe["parameters"] |= GRADIENTS[what]
    out = tmp_path / "out"
    relex_merge.extrapolate(recipe, out, quiet=True)
    written = report_in(out)
    assert json.loads(json.dumps(relex_merge.inspect(out))) == written
    assert json.loads(json.dumps(relex_merge.inspect(recipe, quiet=True))) == written
    other = json.loads(json.dumps(relex_merge.inspect(out, target_step=20)))
    same = relex_merge.inspect(recipe, target_step=20, quiet=True)
    assert other == json.loads(json.dumps(same))


def test_the_same_report_through_mergekits_own_path(deep: Series, tmp_path: Path) -> None:
    recipe = sliced(deep.recipe(16, rank=[1, 4]))
    for entry in recipe["slices"][0]["sources"]:
        entry["layer_range"] = [0, 4]
    out = tmp_path / "out"
    relex_merge.extrapolate(recipe, out, quiet=True)
    assert json.loads(json.dumps(relex_merge.inspect(out))) == report_in(out)


@pytest.mark.parametrize("plain", [{}, {"rank": [{"filter": "mlp", "value": 3}, {"value": 1}]}])
def test_without_gradients_the_recipe_tells_all(
    plain: dict[str, Any], deep: Series, tmp_path: Path
) -> None:
    recipe = deep.recipe(16)
    recipe["parameters"] |= plain
    out = tmp_path / "out"
    relex_merge.extrapolate(recipe, out, quiet=True)
    assert "parameters" not in report_in(out)
    assert json.loads(json.dumps(relex_merge.inspect(out))) == report_in(out)


def test_gradients_that_nobody_wrote_down_are_not_guessed(deep: Series, tmp_path: Path) -> None:
    recipe = deep.recipe(16, rank=[1, 4])
    out = tmp_path / "out"
    relex_merge.extrapolate(recipe, out, quiet=True)
    report = report_in(out)
    del report["parameters"]
    (out / "relex_report.json").write_text(json.dumps(report))
    with pytest.raises(RelexError, match="gradients"):
        relex_merge.inspect(out)
    shutil.rmtree(out)
