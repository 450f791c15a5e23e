"""Every recipe in recipes/ is one that mergekit accepts and that says what it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from mergekit.config import MergeConfiguration

from relex_merge.engine.plan import Settings
from relex_merge.recipe.listed import steps_in_order
from relex_merge.recipe.load import Recipe, load_recipe
from relex_merge.recipe.variant import Variant

FOLDER = Path(__file__).parents[2] / "recipes"
FILES = sorted(FOLDER.glob("*.yml"))
TENSORS = {
    "model.norm.weight": "stay",
    "model.layers.0.input_layernorm.weight": "stay",
    "model.layers.7.post_attention_layernorm.weight": "stay",
    "model.layers.7.self_attn.q_norm.weight": "stay",
    "model.layers.7.self_attn.q_proj.weight": "linear",
    "model.embed_tokens.weight": "linear",
}
# base model, observed steps, target step: the settings of the paper (arXiv 2605.21468)
PUBLIC = {
    "rlvr-qwen2.5-math-1.5b.yml": ("Qwen/Qwen2.5-Math-1.5B", 75, 1000),
    "rlvr-qwen3-4b-base.yml": ("Qwen/Qwen3-4B-Base", 75, 500),
    "rlvr-qwen3-8b-base.yml": ("Qwen/Qwen3-8B-Base", 100, 750),
}


def ordered(recipe: Recipe) -> tuple[list[str], list[float]]:
    """References and steps of the checkpoints, by step."""
    entries = recipe.config.models or []
    labels = [str(entry.model) for entry in entries]
    given = [(entry.parameters or {}).get("step") for entry in entries]
    found = steps_in_order(labels, given)
    return [labels[position] for _, position in found], [step for step, _ in found]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_recipe_loads_in_mergekit_after_expansion(path: Path) -> None:
    recipe = load_recipe(path)
    text = recipe.to_yaml()
    assert "{" not in text.split("parameters:")[0]
    config = MergeConfiguration.model_validate(yaml.safe_load(text))
    assert config.merge_method == "relex"
    assert len(ordered(recipe)[0]) >= 2


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_recipe_is_plain_mergekit_yaml_and_explained(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    # Even before expansion mergekit's own configuration accepts it.
    MergeConfiguration.model_validate(yaml.safe_load(text))
    assert text.startswith("# ")
    assert f"relex-merge run recipes/{path.name} OUT" in text


def test_there_is_a_recipe_for_each_public_series_local_folders_adapters_and_filters() -> None:
    assert {path.name for path in FILES} == {
        *PUBLIC,
        "local-folders.yml",
        "lora-adapters.yml",
        "norms-as-last.yml",
        "per-tensor-filters.yml",
        "scaled.yml",
    }


def test_norms_stay_as_in_the_last_checkpoint() -> None:
    recipe = load_recipe(FOLDER / "norms-as-last.yml")
    settings = Settings(recipe, [Variant()], np.arange(1.0, 76.0))
    asked = {name: settings.parameters(name, 0.5)[0].predictor for name in TENSORS}
    assert asked == TENSORS


def test_the_scaled_recipe_and_what_it_says_of_averages() -> None:
    path = FOLDER / "scaled.yml"
    parameters = load_recipe(path).settings["parameters"]
    assert (parameters["anchor"], parameters["scale"]) == ("last", 0.3)
    other = path.read_text(encoding="utf-8").replace("  anchor: last\n", "")
    for key in ("anchor: average", "window: 10"):
        other = other.replace(f"  # {key}\n", f"  {key}\n")
    recipe = load_recipe(yaml.safe_load(other))
    (found,) = Settings(recipe, [Variant()], np.arange(1.0, 101.0)).parameters("w", 0.5)
    assert (found.anchor, found.window, found.scale) == ("average", 10, 0.3)


@pytest.mark.parametrize("name", PUBLIC)
def test_the_public_series_have_the_papers_settings(name: str) -> None:
    base, observed, target = PUBLIC[name]
    recipe = load_recipe(FOLDER / name)
    size = base.removeprefix("Qwen/")
    labels, steps = ordered(recipe)
    assert str(recipe.config.base_model) == base
    assert labels == [f"relex-rlvr/RLVR-{size}@step_{i}" for i in range(1, observed + 1)]
    assert steps == list(range(1, observed + 1))
    parameters = recipe.settings["parameters"]
    assert parameters["target_step"] == target
    assert (parameters["rank"], parameters["degree"]) == (1, 1)


def test_the_trap_of_the_1_5b_series_is_explained() -> None:
    text = (FOLDER / "rlvr-qwen2.5-math-1.5b.yml").read_text(encoding="utf-8")
    assert "one checkpoint was saved per two optimizer steps" in text.replace("\n# ", " ")
