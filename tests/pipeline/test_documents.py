"""Report, figure and card of odd inputs: none of them costs the user the model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import relex_merge
from relex_merge.trajectory.statistics import SeriesStatistics
from tests.support.models import Series, expected, read_weights, worst_error, write_recipe
from tests.support.terminal import Command

FLOAT32 = 1e-6  # of the largest number of a tensor


def test_a_figure_that_cannot_be_drawn_is_left_out(
    relex: Command, series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    recipe = write_recipe(tmp_path / "r.yml", series.recipe())
    monkeypatch.setenv("PATH", str(tmp_path))
    with matplotlib.rc_context({"text.usetex": True}):  # as in a matplotlibrc, without LaTeX
        done = relex("run", "--yes", recipe, tmp_path / "out", "--figure")
    assert done.code == 0, done.err
    assert "warning: the figure (relex_report.png) is missing, the model is not" in done.err
    assert "latex" in done.err
    assert worst_error(read_weights(tmp_path / "out"), expected(series)) < FLOAT32
    assert not (tmp_path / "out/relex_report.png").exists()
    assert "relex_report.png" not in (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "out/relex_report.json").read_text())["gaps"] == []


def test_a_card_that_cannot_be_written_is_left_out(mine: Series, tmp_path: Path) -> None:
    nested = "[" * 5_000  # deeper than the parser of the base's front matter can go
    (mine.base / "README.md").write_text(f"---\nlicense: {nested}\n---\n")
    out, said = tmp_path / "out", list[str]()
    relex_merge.extrapolate(mine.recipe(), out, figure=False, quiet=True, notify=said.append)
    (warning,) = said
    assert "warning: the model card (README.md) is missing, the model is not" in warning
    assert worst_error(read_weights(out), expected(mine)) < FLOAT32
    assert not (out / "README.md").exists()
    assert (out / "mergekit_config.yml").is_file()


def test_a_base_whose_card_has_an_impossible_date_has_no_license(
    relex: Command, mine: Series, tmp_path: Path
) -> None:
    (mine.base / "README.md").write_text("---\nlicense: mit\nreleased: 2024-13-45\n---\n")
    done = relex("run", "--yes", write_recipe(tmp_path / "r.yml", mine.recipe()), tmp_path / "out")
    assert done.code == 0, done.err
    assert "warning" not in done.err
    assert (tmp_path / "out/README.md").is_file()


def test_steps_that_no_float_holds_exactly_are_refused_and_the_largest_is_drawn(
    relex: Command, series: Series, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    recipe = series.recipe()
    for entry, step in zip(recipe["models"], series.steps, strict=True):
        entry["parameters"] = {"step": step * 1e19}
    path, plot = write_recipe(tmp_path / "r.yml", recipe), tmp_path / "plot.png"
    done = relex("inspect", path, "--quiet", "--plot", plot, "--target-step", 20)
    assert done.code == 1
    assert "it must be a number from 0 to 2^53" in done.err
    largest = 2**53 // series.steps[-1]
    for entry, step in zip(recipe["models"], series.steps, strict=True):
        entry["parameters"] = {"step": int(step * largest)}
    write_recipe(path, recipe)
    done = relex("inspect", path, "--quiet", "--plot", plot, "--target-step", 2**53)
    assert done.code == 0, done.err
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_an_output_whose_gram_matrices_are_spoilt_is_refused_by_name(
    relex: Command, series: Series, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    relex_merge.extrapolate(series.recipe(), out, figure=False, quiet=True)
    file = out / "relex_gram.safetensors"
    found = SeriesStatistics.load(file)
    name, first = next(iter(found.tensors.items()))
    spoilt = replace(first, gram=np.full_like(first.gram, np.nan))
    replace(found, tensors={**found.tensors, name: spoilt}).save(file)
    done = relex("inspect", out, "--html", tmp_path / "report.html")
    assert done.code == 1
    assert f"{file} is not a file of Gram matrices" in done.err
    assert "holds NaN or Inf" in done.err
