"""Promises of a recipe: plain mergekit YAML, brace ranges expanded, faults named."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mergekit.config import MergeConfiguration

from relex_merge.errors import RelexError
from relex_merge.recipe.braces import expand_braces
from relex_merge.recipe.load import load_recipe
from relex_merge.recipe.schema import KEYS
from tests.support.models import write_recipe

MODELS = ["org/run@step_1", "org/run@step_2"]


def recipe(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "merge_method": "relex",
        "base_model": "org/base",
        "models": [{"model": name} for name in MODELS],
        "parameters": {"target_step": 10},
    }
    return {**made, **changes}


def names(settings: dict[str, Any]) -> list[str]:
    return [str(entry.model) for entry in load_recipe(settings).config.models or []]


# brace ranges


@pytest.mark.parametrize(
    "text",
    [
        "org/run@step_{1..5}",
        "org/run@step_{1..75..5}",
        "org/run@step_{0..10}",
        "org/run@step_{0..100..25}",
        "org/run@main-step-{000000005..000000025..10}",
        "org/run@step_{01..10}",
        "org/run@step_{8..010}",
        "/runs/checkpoint-{50..200..50}/actor/huggingface",
        "/runs/seed_{1..2}/checkpoint-{10..30..10}",
        "x{5..1}",
        "x{10..1..3}",
        "x{3..3}",
        "x{1..10..-4}",
        "x{-2..2}",
        "x{-05..5..5}",
        "x{a..b",
        "plain",
    ],
)
def test_brace_ranges_mean_what_they_mean_in_bash(text: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {text}"], capture_output=True, text=True, check=True
    )
    assert expand_braces(text) == done.stdout.splitlines()


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 50))
def test_every_step_of_a_range_is_there_in_order(start: int, stop: int, stride: int) -> None:
    found = [int(x[5:]) for x in expand_braces(f"step_{{{start}..{stop}..{stride}}}")]
    way = 1 if start <= stop else -1
    assert found == list(range(start, stop + way, way * stride))


@given(st.integers(0, 99), st.integers(0, 99), st.integers(2, 9))
def test_zero_padding_keeps_its_width(start: int, stop: int, width: int) -> None:
    found = expand_braces(f"{{{start:0{width}d}..{stop:0{width}d}}}")
    assert {len(x) for x in found} == {width}
    assert int(found[0]) == start
    assert int(found[-1]) == stop


def test_a_stride_of_zero_is_refused() -> None:
    with pytest.raises(RelexError, match="stride"):
        expand_braces("step_{1..9..0}")


def test_ranges_are_expanded_wherever_models_are_listed() -> None:
    entry = {"model": "org/run@step_{1..3}", "parameters": {"step": 5}}
    assert names(recipe(models=[entry])) == [f"org/run@step_{i}" for i in (1, 2, 3)]
    layers = {"model": "org/run@step_{1..3}", "layer_range": [0, 2]}
    sliced = recipe(slices=[{"sources": [layers]}])
    del sliced["models"]
    loaded = load_recipe(sliced)
    assert loaded.config.slices is not None
    assert len(loaded.config.slices[0].sources) == 3


def test_entries_of_one_range_are_written_out_without_aliases() -> None:
    entry = {"model": "org/run@step_{1..3}", "parameters": {"role": "observed"}}
    assert load_recipe(recipe(models=[entry])).to_yaml().count("role: observed") == 3


def test_the_order_of_entries_is_kept_and_plain_ones_are_untouched() -> None:
    models = [{"model": "a/b@step_9"}, {"model": "a/b@step_{2..3}"}, {"model": "a/b@step_1"}]
    assert names(recipe(models=models)) == [f"a/b@step_{i}" for i in (9, 2, 3, 1)]


def test_what_the_caller_holds_is_not_changed() -> None:
    given_recipe = recipe(models=[{"model": "org/run@step_{1..3}"}])
    before = copy.deepcopy(given_recipe)
    load_recipe(given_recipe, target_step=99)
    assert given_recipe == before


def test_the_expanded_recipe_is_yaml_that_mergekit_reads_and_that_loads_to_the_same() -> None:
    first = load_recipe(recipe(models=[{"model": "org/run@step_{1..3}"}], out_dtype="bfloat16"))
    text = first.to_yaml()
    config = MergeConfiguration.model_validate(yaml.safe_load(text))
    assert config == first.config
    assert load_recipe(yaml.safe_load(text)).settings == first.settings


def test_target_step_replaces_the_recipes_own() -> None:
    filtered = recipe(parameters={"target_step": [{"filter": "mlp", "value": 5}, {"value": 9}]})
    for settings in (recipe(), recipe(parameters=None), filtered):
        loaded = load_recipe(settings, target_step=500)
        assert loaded.settings["parameters"] == {"target_step": 500}


def test_every_key_of_this_mergekit_is_one_of_a_relex_recipe() -> None:
    """The keys are checked before mergekit is imported, by a list of our own."""
    assert set(KEYS) == {*MergeConfiguration.model_fields, "series"}


# other recipes


def test_recipes_of_other_methods_are_read_but_not_judged() -> None:
    loaded = load_recipe({"merge_method": "linear", "models": [{"model": "a/b"}], "dtype": "x"})
    assert not loaded.is_relex
    with pytest.raises(RelexError, match="--target-step is for merge_method: relex"):
        load_recipe({"merge_method": "linear", "models": [{"model": "a/b"}]}, target_step=3)


# faults


@pytest.mark.parametrize(
    ("settings", "culprit", "remedy"),
    [
        (recipe(merge_method="relexx"), "relexx", "did you mean relex"),
        ({k: v for k, v in recipe().items() if k != "merge_method"}, "merge_method", "relex"),
        (recipe(base_model=None), "base_model", "run started from"),
        (recipe(models=[{"model": "org/run@step_1"}]), "1 checkpoint ", "at least two"),
        (recipe(models=[]), "0 checkpoints", "at least two"),
        (recipe(parameters={}), "target_step is missing", "--target-step N"),
        (recipe(parameters={"target_step": "soon"}), "'soon'", "number"),
        (recipe(parameters={"target_step": True}), "True", "number"),
        (recipe(parameters={"target_step": [{"filter": "a", "value": "x"}]}), "'x'", "number"),
        (recipe(parameters={"target_step": 9, "rnk": 2}), "'rnk'", "did you mean rank"),
        (recipe(parameters={"target_step": 9, "zzz": 2}), "'zzz'", "target_step"),
        (recipe(parameters=[1]), "parameters", "mapping"),
        (recipe(models={"model": "a"}), "models", "list"),
        (recipe(models=["org/run@step_1", "org/run@step_2"]), "models", "model:"),
        (recipe(base_modle="a"), "'base_modle'", "did you mean base_model"),
        (
            recipe(models=[{"model": m, "parameters": {"stp": 1}} for m in MODELS]),
            "'stp'",
            "step",
        ),
        (
            recipe(models=[{"model": m, "parmeters": {"step": 1}} for m in MODELS]),
            "'parmeters'",
            "parameters",
        ),
        (recipe(models=[{"modle": m} for m in MODELS]), "modle", "model"),
        (recipe(out_dtype="bf17"), "out_dtype is 'bf17'", "bfloat16"),
        (recipe(dtype="int64"), "dtype is 'int64'", "float32"),
        (recipe(slices=[{"sources": []}]), "Exactly one of", "models"),
        (
            recipe(parameters={"target_step": [{"filtre": "mlp", "value": 5}, {"value": 9}]}),
            "'filtre'",
            "did you mean filter",
        ),
        (recipe(models=[{"model": m, "parameters": 3} for m in MODELS]), MODELS[0], "{step: N}"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_faulty_recipe_is_refused_naming_culprit_and_remedy(
    settings: dict[str, Any], culprit: str, remedy: str
) -> None:
    with pytest.raises(RelexError) as caught:
        load_recipe(settings)
    assert culprit in str(caught.value)
    assert remedy in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"merge_method: [relex", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"- just\n- a list\n", "not a recipe"),
        (b"", "not a recipe"),
        (b"!!python/object/apply:os.system ['false']", "is not YAML"),
    ],
)
def test_files_that_are_no_recipes_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yml"
    path.write_bytes(content)
    with pytest.raises(RelexError, match=message) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)


def test_a_recipe_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(RelexError, match=r"cannot read the recipe .*no\.yml"):
        load_recipe(tmp_path / "no.yml")
    with pytest.raises(RelexError, match="is a folder, not a recipe"):
        load_recipe(tmp_path)


def test_a_path_may_be_a_string(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "r.yml", recipe())
    assert load_recipe(str(path)).config == load_recipe(path).config
    assert load_recipe(path).name == str(path)
