"""All of mergekit through ``relex-merge run``: other methods, and recipes beyond the engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from transformers import AutoTokenizer

import relex_merge
from tests.support.models import (
    TEMPLATE,
    Series,
    expected,
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


@pytest.fixture(scope="module")
def with_tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """A series whose checkpoints have tokenizers of their own. Not to be changed."""
    return make_series(tmp_path_factory.mktemp("tokenizers"), tokenizers=True)


def by_mergekit(recipe: dict[str, Any], out: Path, **options: Any) -> dict[str, torch.Tensor]:
    config = MergeConfiguration.model_validate(recipe)
    run_merge(config, str(out), MergeOptions(**{"quiet": True, **options}))
    return read_weights(out)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_other_methods_pass_through_unchanged(
    method: str, relex: Command, series: Series, tmp_path: Path
) -> None:
    recipe: dict[str, Any] = {
        "merge_method": method,
        "models": [{"model": str(series.base)}, {"model": str(series.checkpoints[-1])}],
        "dtype": "float32",
    }
    if method == "linear":
        for entry in recipe["models"]:
            entry["parameters"] = {"weight": 0.5}
    else:
        recipe |= {"base_model": str(series.base), "parameters": {"t": 0.3}}
    path = write_recipe(tmp_path / "r.yml", recipe)
    done = relex("run", "--yes", path, tmp_path / "ours")
    assert done.code == 0, done.err
    theirs = by_mergekit(recipe, tmp_path / "theirs")
    ours = read_weights(tmp_path / "ours")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[n], theirs[n]) for n in theirs)
    assert names(tmp_path / "ours") == names(tmp_path / "theirs")
    assert "relex_report.json" not in names(tmp_path / "ours")
    done = relex("run", "--yes", path, tmp_path / "no", "--target-step", 3)
    assert done.code == 1
    assert "relex" in done.err
    done = relex("run", "--yes", path, tmp_path / "no", "--target-step", 3, "--target-step", 4)
    assert done.code == 1
    assert names(tmp_path) == {"r.yml", "ours", "theirs"}


@pytest.mark.parametrize("what", ["tokenizer_source", "slices", "modules", "chat_template"])
def test_what_the_engine_does_not_do_goes_through_mergekit_and_is_said(
    what: str, relex: Command, with_tokenizers: Series, tmp_path: Path
) -> None:
    series = with_tokenizers
    recipe = series.recipe(20)
    if what == "tokenizer_source":
        recipe["tokenizer_source"] = "base"
    elif what == "chat_template":
        recipe["chat_template"] = TEMPLATE
    else:
        models = recipe.pop("models")
        sources = [{**entry, "layer_range": [0, 2]} for entry in models]
        sources.append({"model": str(series.base), "layer_range": [0, 2]})
        slices = [{"sources": sources}]
        recipe |= (
            {"slices": slices} if what == "slices" else {"modules": {"default": {"models": models}}}
        )
    path = write_recipe(tmp_path / "r.yml", recipe)
    done = relex("run", "--yes", path, tmp_path / "out")
    assert done.code == 0, done.err
    assert what in done.err
    assert "mergekit" in done.err
    assert names(tmp_path / "out") >= WHOLE
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(series.base_state)
    assert worst_error(read_weights(tmp_path / "out"), expected(series)) < FLOAT32
    report = json.loads((tmp_path / "out/relex_report.json").read_text())
    assert [c["step"] for c in report["checkpoints"]] == list(series.steps)
    assert set(report["tensors"]) == set(series.base_state)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    if what == "chat_template":
        assert tokenizer.chat_template == TEMPLATE
    done = relex("run", "--yes", path, tmp_path / "two", "--target-step", 3, "--target-step", 4)
    assert done.code == 1
    assert what in done.err
    assert names(tmp_path) == {"r.yml", "out"}


def test_engine_and_mergekits_path_give_the_same_model_and_report(
    with_tokenizers: Series, tmp_path: Path
) -> None:
    recipe = with_tokenizers.recipe(20, rank=2)
    engine = relex_merge.extrapolate(recipe, tmp_path / "engine", quiet=True)
    said: list[str] = []
    theirs = relex_merge.extrapolate(
        {**recipe, "tokenizer_source": "base"},
        tmp_path / "theirs",
        quiet=True,
        notify=said.append,
    )
    assert len(said) == 1
    ours, other = read_weights(engine.out), read_weights(theirs.out)
    assert ours.keys() == other.keys()
    assert all(torch.equal(ours[n], other[n]) for n in ours)
    for key in ("method", "base", "checkpoints", "target_step", "summary", "verdict"):
        assert engine.report[key] == theirs.report[key], key
    assert engine.report["tensors"] == {n: theirs.report["tensors"][n] for n in ours}


def test_weights_that_only_some_checkpoints_have_are_mergekits_business(tmp_path: Path) -> None:
    series = make_series(tmp_path, steps=(1, 2, 3), tie_word_embeddings=True)
    # Some trainers save the tied lm_head as well.
    for folder, state in zip(series.checkpoints[1:], series.states[1:], strict=True):
        head = {"lm_head.weight": state["model.embed_tokens.weight"].clone()}
        write_weights(folder, {**state, **head})
    ours = relex_merge.extrapolate(series.recipe(10), tmp_path / "out", quiet=True)
    theirs = by_mergekit(series.recipe(10), tmp_path / "theirs")
    written = read_weights(ours.out)
    assert written.keys() == theirs.keys()
    assert all(torch.equal(written[n], theirs[n]) for n in theirs)


def test_no_safe_serialization_writes_bin_files(
    relex: Command, series: Series, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "r.yml", series.recipe())
    done = relex("run", "--yes", recipe, tmp_path / "out", "--no-safe-serialization")
    assert done.code == 0, done.err
    bins = list((tmp_path / "out").glob("*.bin"))
    state = {n: w for file in bins for n, w in torch.load(file, weights_only=True).items()}
    assert worst_error(state, expected(series)) < FLOAT32


@pytest.mark.skipif(torch.accelerator.is_available(), reason="is about machines without a GPU")
@pytest.mark.parametrize("option", ["--multi-gpu", "--gpu-rich"])
@pytest.mark.parametrize("method", ["relex", "linear"])
def test_many_gpus_where_there_is_none(
    relex: Command, series: Series, tmp_path: Path, option: str, method: str
) -> None:
    recipe = series.recipe()
    if method == "linear":
        recipe |= {"merge_method": "linear", "parameters": {"weight": 1}}
    done = relex("run", "--yes", write_recipe(tmp_path / "r.yml", recipe), tmp_path / "out", option)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "error: --multi-gpu: there is no GPU here; leave the option out" in done.err
    assert not (tmp_path / "out").exists()
