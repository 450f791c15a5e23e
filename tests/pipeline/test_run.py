"""Promises of ``relex-merge run``: a whole, loadable, right model at OUT, from local folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mergekit.config import MergeConfiguration
from transformers import AutoModelForCausalLM, AutoTokenizer

import relex_merge
from relex_merge.pipeline.run import Result
from tests.support.models import (
    Series,
    expected,
    float64,
    make_series,
    read_weights,
    worst_error,
    write_recipe,
    write_weights,
)
from tests.support.terminal import Command

WHOLE = {
    "README.md",
    "config.json",
    "mergekit_config.yml",
    "model.safetensors",
    "relex_report.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
FLOAT32 = 1e-6  # of the largest number of a tensor
pytestmark = pytest.mark.usefixtures("no_figure")


def run(series: Series, out: Path, target: float = 20, **parameters: Any) -> Result:
    return relex_merge.extrapolate(series.recipe(target, **parameters), out, quiet=True)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_output_is_whole_loads_and_agrees_with_the_svd(
    relex: Command, series: Series, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yml", series.recipe(20))
    done = relex("run", "--yes", recipe, tmp_path / "new/out")
    assert (done.code, done.out) == (0, f"wrote {tmp_path / 'new/out'}\n")
    out = tmp_path / "new/out"
    assert names(out) >= WHOLE
    assert names(tmp_path / "new") == {"out"}
    assert worst_error(read_weights(out), expected(series)) < FLOAT32
    model = AutoModelForCausalLM.from_pretrained(out)
    assert type(model).__name__ == "Qwen2ForCausalLM"
    tokens = AutoTokenizer.from_pretrained(out)("1 + 2 = ", return_tensors="pt")
    weights = dict(model.state_dict())
    for name, tensor in read_weights(out).items():
        assert torch.equal(weights[name], tensor)
    assert torch.isfinite(model(tokens["input_ids"]).logits).all()


def test_the_report_the_recipe_and_the_card_say_what_was_done(
    relex: Command, series: Series, tmp_path: Path
) -> None:
    from huggingface_hub import ModelCard

    pattern = {"model": f"{series.base.parent}/step_{{1..2}}"}
    rest = [{"model": str(folder)} for folder in reversed(series.checkpoints[2:])]
    recipe = write_recipe(
        tmp_path / "r.yml", {**series.recipe(1000, rank=2), "models": [*rest, pattern]}
    )
    assert relex("run", "--yes", recipe, tmp_path / "out").code == 0
    report = json.loads((tmp_path / "out/relex_report.json").read_text())
    method = {"name": "relex", "rank": 2, "degree": 1, "window": None, "mode": "extrapolate"}
    assert report["method"] == method
    assert report["base"] == {"reference": str(series.base), "sha": None}
    assert [c["step"] for c in report["checkpoints"]] == list(series.steps)
    assert [c["reference"] for c in report["checkpoints"]] == [str(c) for c in series.checkpoints]
    assert report["target_step"] == 1000
    figures = {"explained_variance", "r2", "straightness", "backtest_skill"}
    assert set(report["summary"]) >= figures
    for name in figures:
        assert {"min", "mean", "max"} <= set(report["summary"][name])
    assert set(report["tensors"]) == set(series.base_state)
    assert all(figures <= set(entry) for entry in report["tensors"].values())
    assert report["verdict"]["verdict"]
    assert {"relex-merge", "mergekit", "torch"} <= set(report["versions"])
    written = yaml.safe_load((tmp_path / "out/mergekit_config.yml").read_text())
    MergeConfiguration.model_validate(written)
    order = [*reversed(series.checkpoints[2:]), *series.checkpoints[:2]]
    assert [entry["model"] for entry in written["models"]] == [str(folder) for folder in order]
    card = ModelCard.load(tmp_path / "out/README.md")
    assert set(card.data.tags) >= {"mergekit", "merge", "relex", "rlvr"}
    assert worst_error(read_weights(tmp_path / "out"), expected(series, 1000, rank=2)) < FLOAT32


def test_explained_variance_and_straightness_of_the_report_are_those_of_the_svd(
    series: Series, tmp_path: Path
) -> None:
    import numpy as np

    report = run(series, tmp_path / "out").report
    for name, weight in series.base_state.items():
        M = np.stack([float64(s[name]) for s in series.states]) - float64(weight)
        squares = np.linalg.svd(M, compute_uv=False) ** 2
        path = np.linalg.norm(np.diff(M, axis=0, prepend=0), axis=1).sum()
        figures = report["tensors"][name]
        assert figures["explained_variance"] == pytest.approx(squares[0] / squares.sum(), rel=1e-6)
        assert figures["straightness"] == pytest.approx(np.linalg.norm(M[-1]) / path, rel=1e-6)


def test_the_card_shows_a_figure_where_matplotlib_is_installed(
    series: Series, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    out = relex_merge.extrapolate(series.recipe(), tmp_path / "a", quiet=True, figure=True).out
    (figure,) = out.glob("*.png")
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert f"]({figure.name})" in (out / "README.md").read_text()
    out = relex_merge.extrapolate(series.recipe(), tmp_path / "b", quiet=True, figure=False).out
    assert not list(out.glob("*.png"))
    assert ".png" not in (out / "README.md").read_text()


@pytest.mark.parametrize(
    "how",
    [
        {"rank": 3},
        {"degree": 2},
        {"window": 3},
        {"rank": 2, "degree": 2, "window": 4},
        {"target": 7, "mode": "reconstruct"},
        {"target": 7, "mode": "reconstruct", "rank": 2},
        {"target": 4.5},
        {"target": 0},
    ],
    ids=str,
)
def test_every_parameter_does_what_the_svd_says(
    how: dict[str, Any], series: Series, tmp_path: Path
) -> None:
    run(series, tmp_path / "out", **how)
    assert worst_error(read_weights(tmp_path / "out"), expected(series, **how)) < FLOAT32


def test_filters_choose_per_tensor_and_the_first_match_counts(
    series: Series, tmp_path: Path
) -> None:
    recipe = series.recipe(None)
    recipe["parameters"] = {
        "target_step": [{"filter": "embed_tokens", "value": 100}, {"value": 20}],
        "rank": [{"filter": "mlp", "value": 2}, {"filter": "mlp.up", "value": 3}, {"value": 1}],
    }
    relex_merge.extrapolate(recipe, tmp_path / "out", quiet=True)
    want, far, wide = (expected(series), expected(series, 100), expected(series, rank=2))
    for name in want:
        if "embed_tokens" in name:
            want[name] = far[name]
        elif "mlp" in name:
            want[name] = wide[name]
    assert worst_error(read_weights(tmp_path / "out"), want) < FLOAT32


def test_bfloat16_checkpoints_lose_nothing_beyond_their_own_rounding(tmp_path: Path) -> None:
    series = make_series(tmp_path, dtype=torch.bfloat16, scale=0.01)
    run(series, tmp_path / "out")
    want = expected(series)
    wrong = total = 0
    for name, weight in read_weights(tmp_path / "out").items():
        assert weight.dtype == torch.bfloat16
        rounded = torch.from_numpy(want[name]).bfloat16().reshape(weight.shape)
        wrong += int((weight != rounded).sum())
        total += weight.numel()
    assert wrong / total < 1e-3


def test_base_and_checkpoints_may_differ_in_dtype(tmp_path: Path) -> None:
    series = make_series(tmp_path)
    state = {n: w.bfloat16() for n, w in series.states[2].items()}
    write_weights(series.checkpoints[2], state)
    mixed = Series(
        series.base,
        series.checkpoints,
        series.steps,
        series.base_state,
        (*series.states[:2], state, *series.states[3:]),
    )
    run(mixed, tmp_path / "out")
    assert worst_error(read_weights(tmp_path / "out"), expected(mixed)) < FLOAT32


@pytest.mark.parametrize("kind", ["llama", "qwen3_moe", "mixtral", "t5"])
def test_other_architectures_through_the_engine(kind: str, tmp_path: Path) -> None:
    series = make_series(tmp_path, kind=kind, steps=(1, 2, 3))
    said: list[str] = []
    relex_merge.extrapolate(series.recipe(10), tmp_path / "out", quiet=True, notify=said.append)
    assert said == []
    assert worst_error(read_weights(tmp_path / "out"), expected(series, 10)) < FLOAT32


def test_untied_and_tied_embeddings_are_written_as_mergekit_writes_them(tmp_path: Path) -> None:
    for tied in (False, True):
        series = make_series(tmp_path / str(tied), steps=(1, 2, 3), tie_word_embeddings=tied)
        run(series, tmp_path / f"out-{tied}", 10)
        merged = read_weights(tmp_path / f"out-{tied}")
        assert ("lm_head.weight" in merged) is (not tied)
        assert worst_error(merged, expected(series, 10)) < FLOAT32


def test_the_base_may_be_listed_among_the_models(series: Series, tmp_path: Path) -> None:
    recipe = series.recipe()
    recipe["models"].insert(2, {"model": str(series.base)})
    relex_merge.extrapolate(recipe, tmp_path / "out", quiet=True)
    assert worst_error(read_weights(tmp_path / "out"), expected(series)) < FLOAT32


def test_shards_of_the_input_and_of_the_output_do_not_matter(
    series: Series, tmp_path: Path, relex: Command
) -> None:
    sharded = make_series(tmp_path, shards=3)
    recipe = write_recipe(tmp_path / "r.yml", sharded.recipe())
    assert relex("run", "--yes", recipe, tmp_path / "out", "--out-shard-size", "6K").code == 0
    assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 2
    assert worst_error(read_weights(tmp_path / "out"), expected(sharded)) < FLOAT32
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    for name, weight in read_weights(tmp_path / "out").items():
        assert torch.equal(loaded[name], weight)
    for shard in (tmp_path / "out").glob("model-*-of-*.safetensors"):
        assert shard.stat().st_size < 12_000


def test_bin_checkpoints_give_the_same_model(series: Series, tmp_path: Path) -> None:
    folders = []
    for folder in (series.base, *series.checkpoints):
        copy = Path(shutil.copytree(folder, tmp_path / folder.name))
        torch.save(read_weights(copy), copy / "pytorch_model.bin")
        (copy / "model.safetensors").unlink()
        folders.append(copy)
    recipe = {**series.recipe(), "base_model": str(folders[0])}
    recipe["models"] = [{"model": str(folder)} for folder in folders[1:]]
    relex_merge.extrapolate(recipe, tmp_path / "out", quiet=True)
    run(series, tmp_path / "same")
    ours, same = read_weights(tmp_path / "out"), read_weights(tmp_path / "same")
    assert all(torch.equal(ours[n], same[n]) for n in same)


def test_relative_paths_start_where_the_command_is_run(
    relex: Command, series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(series.base.parent)
    recipe = series.recipe()
    recipe["base_model"] = "./runs/base"
    recipe["models"] = [{"model": f"runs/{c.name}"} for c in series.checkpoints]
    write_recipe(Path("r.yml"), recipe)
    assert relex("run", "--yes", "r.yml", "out").code == 0
    assert worst_error(read_weights(Path("out")), expected(series)) < FLOAT32


def test_the_folder_one_is_in_is_refused(
    relex: Command, series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path / "r.yml", series.recipe())
    (tmp_path / "here/below").mkdir(parents=True)
    for cwd in ("here", "here/below"):
        monkeypatch.chdir(tmp_path / cwd)
        done = relex("run", "--yes", recipe, tmp_path / "here", "--force")
        assert done.code == 1
        assert "while you are in it" in done.err
    assert names(tmp_path / "here") == {"below"}
