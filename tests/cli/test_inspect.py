"""``relex-merge inspect``, and what ``run`` does about the verdict and with earlier matrices."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import relex_merge
from tests.support.models import (
    Series,
    make_config,
    make_series,
    make_state,
    write_model,
    write_recipe,
    write_weights,
)
from tests.support.terminal import Command

pytestmark = pytest.mark.usefixtures("no_figure")
STEPS = tuple(range(1, 13))


@pytest.fixture(scope="module")
def wandering(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """A series that is a random walk: not to be extrapolated. Not to be changed."""
    root = tmp_path_factory.mktemp("walk")
    config = make_config()
    base = make_state(config)
    noise = torch.Generator().manual_seed(1)
    states, now = [], base
    for _ in STEPS:
        now = {n: w + 1e-3 * torch.randn(w.shape, generator=noise) for n, w in now.items()}
        states.append(now)
    folders = [
        write_model(root / f"step_{s}", config, x) for s, x in zip(STEPS, states, strict=True)
    ]
    folder = write_model(root / "base", config, base)
    return Series(folder, tuple(folders), STEPS, base, tuple(states))


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """A dozen checkpoints nearly on a line. Not to be changed."""
    return make_series(tmp_path_factory.mktemp("line"), steps=STEPS)


def report_in(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "relex_report.json").read_text())
    return found


def figures(report: dict[str, Any]) -> dict[str, Any]:
    return {key: report[key] for key in ("summary", "verdict", "model", "tensors", "backtests")}


def test_a_recipe_its_output_and_the_run_give_the_same_report(
    relex: Command, straight: Series, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path / "r.yml", straight.recipe(24))
    assert relex("run", path, tmp_path / "out", "--quiet").code == 0
    written = figures(report_in(tmp_path / "out"))
    for source in (path, tmp_path / "out"):
        done = relex("inspect", source, "--quiet", "--json", tmp_path / "report.json")
        assert done.code == 0, done.err
        assert "whole model" in done.out
        assert f"verdict: {written['verdict']['verdict']}" in done.out
        assert figures(json.loads((tmp_path / "report.json").read_text())) == written
    assert relex_merge.inspect(tmp_path / "out")["verdict"] == written["verdict"]


def test_another_target_of_an_output_needs_no_weights(
    relex: Command, straight: Series, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path / "r.yml", straight.recipe(24))
    assert relex("run", path, tmp_path / "out", "--quiet").code == 0
    for file in (tmp_path / "out").glob("model*.safetensors"):
        file.unlink()
    wanted = ["--target-step", 36, "--quiet", "--json", tmp_path / "report.json"]
    assert relex("inspect", tmp_path / "out", *wanted).code == 0
    ours = json.loads((tmp_path / "report.json").read_text())
    assert relex("inspect", path, *wanted).code == 0
    assert ours["target_step"] == 36
    assert figures(ours) == figures(json.loads((tmp_path / "report.json").read_text()))


def test_held_out_checkpoints_on_the_command_line_and_in_the_recipe(
    relex: Command, straight: Series, tmp_path: Path
) -> None:
    first = straight.recipe(12)
    late = first["models"][8:]
    first["models"] = first["models"][:8]
    path, folder = write_recipe(tmp_path / "a.yml", first), straight.base.parent
    where = tmp_path / "report.json"
    holdout = f"{folder}/step_{{9..12}}"
    done = relex("inspect", path, "--holdout", holdout, "--json", where, "--quiet")
    assert "True skill at held-out checkpoints" in done.out
    ours = json.loads(where.read_text())
    assert [trial["step"] for trial in ours["holdout"]] == [9, 10, 11, 12]
    first["models"] += [{**entry, "parameters": {"role": "holdout"}} for entry in late]
    both = write_recipe(tmp_path / "b.yml", first)
    assert relex("inspect", both, "--json", where, "--quiet").code == 0
    assert json.loads(where.read_text())["holdout"] == ours["holdout"]


def test_held_out_checkpoints_do_not_count_as_moved(straight: Series, tmp_path: Path) -> None:
    root = Path(shutil.copytree(straight.base.parent, tmp_path / "run"))
    write_weights(root / "step_8", straight.base_state)
    recipe = straight.recipe(12)
    recipe["models"] = [{"model": f"{root}/step_{{1..8}}"}]
    holdout = [f"{root}/step_{{9..12}}"]
    for more in ([], holdout):
        report = relex_merge.inspect(recipe, holdout=more, quiet=True)
        assert report["model"]["moved"] == 0


def test_coefficients_as_csv_and_plot_and_the_page(
    relex: Command, straight: Series, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path / "r.yml", straight.recipe(24))
    table, plot, page = (tmp_path / name for name in ("c.csv", "c.svg", "page.html"))
    name = "model.norm.weight"
    done = relex("inspect", path, "--coefficients", table, "--rank", 2, "--html", page, "--quiet")
    assert done.code == 0, done.err
    with table.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["tensor"] == name]
    assert len(rows) == 2 * len(STEPS)
    M = np.stack([(s[name] - straight.base_state[name]).double().numpy() for s in straight.states])
    U, sigma, _ = np.linalg.svd(M, full_matrices=False)
    ours = [abs(float(row["coefficient"])) for row in rows if row["rank"] == "1"]
    np.testing.assert_allclose(ours, np.abs(U[:, 0] * sigma[0]), rtol=1e-5)
    assert name in page.read_text()
    assert relex("inspect", path, "--coefficients", plot, "--tensor", name, "--quiet").code == 0
    assert "<svg" in plot.read_text()


def test_what_cannot_be_written_is_said_before_any_weights_are_read(
    relex: Command, straight: Series, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path / "r.yml", straight.recipe(24))
    for option, file in (("--plot", "r.txt"), ("--coefficients", "c.doc")):
        done = relex("inspect", path, option, tmp_path / file, "--tensor", "x")
        assert done.code == 1
        assert file in done.err
        assert "reading checkpoints" not in done.err


def test_recipes_of_other_methods_cannot_be_inspected(
    relex: Command, straight: Series, tmp_path: Path
) -> None:
    recipe = {"merge_method": "linear", "models": straight.recipe()["models"]}
    done = relex("inspect", write_recipe(tmp_path / "r.yml", recipe))
    assert done.code == 1
    assert "merge_method: relex" in done.err


def test_a_bad_verdict_is_refused_where_nobody_can_be_asked_and_written_with_yes(
    relex: Command, wandering: Series, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path / "r.yml", wandering.recipe(40))
    for flags in (("--strict",), ("--strict", "-v")):  # a traceback changes no exit code
        done = relex("run", path, tmp_path / "out", "--quiet", *flags)
        assert done.code == 3, done.err
        assert "do not extrapolate" in done.err
        assert ("Traceback" in done.err) == ("-v" in flags)
        assert list(tmp_path.iterdir()) == [path]
    done = relex("run", path, tmp_path / "out", "--quiet")
    assert done.code == 3
    assert "the backtests speak against it; give --yes" in done.err
    kept = tmp_path / ".out.relex-partial"
    assert f"what is finished is kept in {kept}" in done.err
    assert set(tmp_path.iterdir()) == {path, kept}
    for checkpoint in wandering.checkpoints:  # nothing is read again
        (checkpoint / "model.safetensors").chmod(0)
    done = relex("run", path, tmp_path / "out", "--quiet", "--yes")
    assert done.code == 0
    assert "WARNING: writing a model although the backtests speak against it" in done.err
    assert set(tmp_path.iterdir()) == {path, tmp_path / "out"}
    assert report_in(tmp_path / "out")["verdict"]["verdict"] == "do not extrapolate"


def test_a_target_within_the_series_is_nothing_to_extrapolate_and_is_written(
    relex: Command, straight: Series, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path / "r.yml", straight.recipe(straight.steps[-1] - 1))
    done = relex("run", path, tmp_path / "out", "--quiet", "--strict")
    assert done.code == 0, done.err
    assert "nothing to extrapolate" in done.err
    assert f"writing step {straight.steps[-1] - 1:g} from within the series" in done.err
    report = report_in(tmp_path / "out")["verdict"]
    assert report["verdict"] == "nothing to extrapolate"


def test_matrices_of_an_earlier_output_serve_another_rank_degree_and_target(
    relex: Command, straight: Series, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path / "r.yml", straight.recipe(24))
    assert relex("run", path, tmp_path / "out", "--quiet").code == 0
    other = write_recipe(tmp_path / "o.yml", straight.recipe(36, rank=2, degree=2))
    again, anew = tmp_path / "again", tmp_path / "anew"
    assert relex("run", other, again, "--reuse", tmp_path / "out", "--quiet").code == 0
    assert relex("run", other, anew, "--quiet").code == 0
    for file in ("model.safetensors", "relex_report.json", "relex_gram.safetensors"):
        assert (again / file).read_bytes() == (anew / file).read_bytes(), file
    shorter = straight.recipe(24)
    del shorter["models"][0]
    path = write_recipe(tmp_path / "s.yml", shorter)
    done = relex("run", path, tmp_path / "no", "--reuse", tmp_path / "out", "--quiet")
    assert done.code == 1
    assert "run without --reuse" in done.err
