"""``run --scale``: every combination of targets and scales in one pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

import relex_merge
from tests.support.models import Series, read_weights


def test_every_combination_in_a_folder_of_its_own(
    series: Series, tmp_path: Path, relex: Any
) -> None:
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(yaml.safe_dump(series.recipe(20, anchor="last")))
    out = tmp_path / "out"
    done = relex(
        *("run", "--yes", recipe, out, "--target-step", 20, "--target-step", 30, "--scale", 0.5),
        *("--scale", 1, "--quiet"),
    )
    assert done.code == 0, done.err
    folders = sorted(path.name for path in out.iterdir())
    assert folders == [f"step-{s}-scale-{x}" for s in (20, 30) for x in ("0.5", "1")]
    alone = relex_merge.extrapolate(
        series.recipe(30, anchor="last", scale=0.5), tmp_path / "alone", figure=False, quiet=True
    )
    together = read_weights(out / "step-30-scale-0.5")
    for name, written in read_weights(alone.out).items():
        torch.testing.assert_close(together[name], written, rtol=1e-6, atol=1e-6)
    report = relex_merge.inspect(out / "step-30-scale-0.5")
    assert report["method"]["anchor"] == "last"
    assert report["method"]["scale"] == 0.5
    assert report["target_step"] == 30
