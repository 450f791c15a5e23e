"""Report, figure and card beside the weights: none of them costs the user the model."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import relex_merge
from tests.support.models import Series, expected, read_weights, worst_error, write_recipe
from tests.support.terminal import Command

FLOAT32 = 1e-6  # of the largest number of a tensor


def test_a_figure_that_cannot_be_drawn_is_left_out_with_a_warning(
    relex: Command, series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    recipe = write_recipe(tmp_path / "r.yml", series.recipe())
    monkeypatch.setenv("PATH", str(tmp_path))
    with matplotlib.rc_context({"text.usetex": True}):  # as in a matplotlibrc, without LaTeX
        done = relex("run", recipe, tmp_path / "out", "--figure")
    assert done.code == 0, done.err
    assert "warning: relex_report.png is left out, the model is complete" in done.err
    assert "latex" in done.err
    assert worst_error(read_weights(tmp_path / "out"), expected(series)) < FLOAT32
    assert not (tmp_path / "out/relex_report.png").exists()
    assert "relex_report.png" not in (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "out/relex_report.json").read_text())["gaps"] == []


def test_a_card_that_cannot_be_written_is_left_out_with_a_warning(
    series: Series, tmp_path: Path
) -> None:
    out = tmp_path / os.fsdecode(b"out\xff")  # the card's title, which is no UTF-8
    said: list[str] = []
    relex_merge.extrapolate(series.recipe(), out, figure=False, quiet=True, notify=said.append)
    assert [line for line in said if "README.md is left out, the model is complete" in line]
    assert worst_error(read_weights(out), expected(series)) < FLOAT32
    assert not (out / "README.md").exists()
    assert (out / "mergekit_config.yml").is_file()


def test_a_base_whose_card_has_an_impossible_date_costs_nothing(
    relex: Command, mine: Series, tmp_path: Path
) -> None:
    (mine.base / "README.md").write_text("---\nlicense: mit\nreleased: 2024-13-45\n---\n")
    done = relex("run", write_recipe(tmp_path / "r.yml", mine.recipe()), tmp_path / "out")
    assert done.code == 0, done.err
    assert "left out" not in done.err
    assert (tmp_path / "out/README.md").is_file()


def test_steps_beyond_64_bits_are_reported_and_drawn(
    relex: Command, series: Series, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    recipe = series.recipe(4.5e19)
    for entry, step in zip(recipe["models"], series.steps, strict=True):
        entry["parameters"] = {"step": step * 1e19}
    path, plot = write_recipe(tmp_path / "r.yml", recipe), tmp_path / "plot.png"
    done = relex("inspect", path, "--quiet", "--plot", plot, "--target-step", 18e19)
    assert done.code == 0, done.err
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_series_whose_arithmetic_overflows_is_written_with_gaps(
    relex: Command, series: Series, tmp_path: Path
) -> None:
    recipe = series.recipe(1.7e308)
    for entry, step in zip(recipe["models"], series.steps, strict=True):
        entry["parameters"] = {"step": step * 1e307}
    done = relex("run", write_recipe(tmp_path / "r.yml", recipe), tmp_path / "out")
    assert done.code == 0, done.err
    print(json.loads((tmp_path / "out/relex_report.json").read_text())["gaps"])
