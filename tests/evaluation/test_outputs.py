"""Finished outputs as candidates: what lies on the disk, compared with what it was made from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import relex_merge
from relex_merge.errors import RelexError
from relex_merge.report.evaluation_file import load_evaluation
from tests.support.adapters import make_adapters
from tests.support.models import Series, make_series

LINES = [{"prompt": f"a{i}", "response": "b c d e"} for i in range(6)]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "text.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return file


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """Twelve checkpoints, so that four lie before the cut of a short backtest."""
    return make_series(tmp_path_factory.mktemp("long"), steps=tuple(range(1, 13)))


@pytest.fixture(scope="module")
def outputs(long: Series, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """step-16, and step-20, written in one pass."""
    out = tmp_path_factory.mktemp("outputs") / "out"
    recipe = long.recipe(None)
    recipe["parameters"]["target_step"] = 20
    relex_merge.extrapolate(recipe, out, target_step=[20, 16], figure=False, quiet=True)
    return out


def evaluate(source: Any, text: Path, **options: Any) -> Any:
    return relex_merge.evaluate(source, text=text, quiet=True, **options)


def kl_of(evaluation: Any) -> dict[str, float]:
    function = evaluation["function"]
    return {e["model"]: e["kl"] for e in [*function["candidates"], *function["others"]]}


def test_outputs_agree_with_candidates_that_are_composed_in_memory(
    long: Series, outputs: Path, text: Path
) -> None:
    composed = kl_of(evaluate(long.recipe(20), text, targets=[16, 20], scales=[1], every=6))
    found = evaluate(outputs, text, every=6)
    assert [e["model"] for e in found["function"]["candidates"]] == ["step 16", "step 20"]
    for name, kl in kl_of(found).items():
        assert kl == pytest.approx(composed[name], rel=1e-3), name
    assert found["chosen"]["model"] in ("step 16", "step 20", "last observed")
    assert found["function"]["remarks"] == []


def test_backtests_are_those_of_the_recipe(long: Series, outputs: Path, text: Path) -> None:
    of_recipe = evaluate(long.recipe(20), text, scales=[1])["function"]["backtests"]
    of_output = evaluate(outputs / "step-20", text)["function"]["backtests"]
    assert [t["ratio"] for t in of_output] == [t["ratio"] for t in of_recipe]
    for one, other in zip(of_output, of_recipe, strict=True):
        assert one["skill"] == pytest.approx(other["skill"], rel=1e-3)


def test_what_counts_is_what_lies_on_the_disk(outputs: Path, text: Path, tmp_path: Path) -> None:
    """An output whose weights were ruined afterwards is judged by what they are now."""
    ruined = tmp_path / "ruined"
    shutil.copytree(outputs / "step-20", ruined)
    state = load_file(ruined / "model.safetensors")
    save_file(
        {n: w + 3 * torch.randn_like(w) for n, w in state.items()},
        ruined / "model.safetensors",
        {"format": "pt"},
    )
    found = evaluate([outputs / "step-20", ruined], text)
    whole, broken = found["function"]["candidates"]
    assert (whole["model"], broken["model"]) == ("step 20 in step-20", "step 20 in ruined")
    assert broken["kl"] > 100 * whole["kl"]


def test_without_the_series_divergences_are_still_given(
    long: Series, text: Path, tmp_path: Path
) -> None:
    series = _copied(long, tmp_path)
    recipe = series.recipe(20)
    relex_merge.extrapolate(recipe, tmp_path / "out", figure=False, quiet=True)
    whole = evaluate(tmp_path / "out", text)
    shutil.rmtree(series.checkpoints[3])
    found = evaluate(tmp_path / "out", text)
    (remark,) = found["function"]["remarks"]
    assert remark.startswith("No functional backtest: the series that the outputs were made from")
    assert str(series.checkpoints[3]) in remark
    assert found["function"]["backtests"] == []
    assert kl_of(found) == pytest.approx(kl_of(whole))
    assert found["verdict"]["evidence"] == "geometry"
    assert found["series"] == whole["series"]
    shutil.rmtree(series.base)
    found = evaluate(tmp_path / "out", text)
    assert found["function"]["others"] == []
    assert "The base is not there either" in found["function"]["remarks"][0]
    with pytest.raises(RelexError, match="--every needs the series of the outputs"):
        evaluate(tmp_path / "out", text, every=2)
    shutil.rmtree(series.checkpoints[-1])
    with pytest.raises(RelexError, match=f"last observed checkpoint .*{series.checkpoints[-1]}"):
        evaluate(tmp_path / "out", text)


def test_files_that_changed_since_are_told_of(long: Series, text: Path, tmp_path: Path) -> None:
    series = _copied(long, tmp_path)
    relex_merge.extrapolate(series.recipe(20), tmp_path / "out", figure=False, quiet=True)
    (series.checkpoints[2] / "model.safetensors").touch()
    found = evaluate(tmp_path / "out", text)
    assert "The files of the series have changed" in found["function"]["remarks"][0]
    assert found["function"]["backtests"]


def _copied(series: Series, root: Path) -> Series:
    """The series in a place where it may be destroyed."""
    shutil.copytree(series.base.parent, root / "series")
    moved = [root / "series" / p.relative_to(series.base.parent) for p in series.checkpoints]
    base = root / "series" / series.base.name
    return Series(base, tuple(moved), series.steps, series.base_state, series.states)


def test_an_adapter_is_a_candidate_too(text: Path, tmp_path: Path) -> None:
    made = make_adapters(tmp_path / "run", steps=(1, 2, 4, 6, 9))
    relex_merge.extrapolate(made.recipe(20), tmp_path / "out", figure=False, quiet=True)
    relex_merge.extrapolate(
        made.recipe(20), tmp_path / "model", form="model", figure=False, quiet=True
    )
    found = evaluate([tmp_path / "out", tmp_path / "model"], text)
    adapter, model = found["function"]["candidates"]
    assert adapter["kl"] == pytest.approx(model["kl"], rel=0.05)
    assert adapter["kl"] > 0


def test_the_winner_of_outputs_is_a_recipe(
    long: Series, outputs: Path, text: Path, tmp_path: Path
) -> None:
    chosen = tmp_path / "chosen.yml"
    found = evaluate(outputs, text, choose=chosen)
    assert load_evaluation(tmp_path / "chosen.evaluation.json")["chosen"] == found["chosen"]
    again = relex_merge.extrapolate(chosen, tmp_path / "again", figure=False, quiet=True)
    step = f"step-{found['chosen']['target_step']:g}"
    assert (again.out / "model.safetensors").read_bytes() == (
        outputs / step / "model.safetensors"
    ).read_bytes()


def test_what_is_no_output_is_named(
    long: Series, outputs: Path, series: Series, text: Path, tmp_path: Path
) -> None:
    with pytest.raises(RelexError, match=f"{long.base} is no finished output of a relex recipe"):
        evaluate(long.base, text)
    relex_merge.extrapolate(series.recipe(20), tmp_path / "other", figure=False, quiet=True)
    one, other = outputs / "step-20", tmp_path / "other"
    with pytest.raises(RelexError, match=f"{one} and {other} were made from different series"):
        evaluate([one, other], text)
    with pytest.raises(RelexError, match=f"{one} is named twice"):
        evaluate([outputs, one], text)
    with pytest.raises(RelexError, match="give one recipe, or one or several finished outputs"):
        evaluate([one, tmp_path / "recipe.yml"], text)
    with pytest.raises(RelexError, match="--target-step, --scale and --anchor are for"):
        evaluate(one, text, scales=[0.5])
    observed = long.recipe(12, mode="reconstruct")
    relex_merge.extrapolate(observed, tmp_path / "observed", figure=False, quiet=True)
    with pytest.raises(RelexError, match=f"{tmp_path / 'observed'} extrapolates nothing"):
        evaluate(tmp_path / "observed", text)
    (one / "model.safetensors").rename(tmp_path / "aside")
    try:
        with pytest.raises(RelexError, match=f"{one}: no model.safetensors, which its index names"):
            evaluate(one, text)
    finally:
        (tmp_path / "aside").rename(one / "model.safetensors")
