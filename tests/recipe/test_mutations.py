"""Recipes gone wrong: each is read or refused in one sentence, quickly, and in little memory."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relex_merge.errors import RelexError
from relex_merge.recipe.listed import listed_checkpoints
from relex_merge.recipe.load import load_recipe
from tests.fake_hub import Hub
from tests.support.models import write_recipe
from tests.support.recipe_judge import MEMORY, SECONDS, read_recipe
from tests.support.recipe_mutations import BLOCKS, BOMB, MERGE_BOMB, RECIPES, mutated_recipes

RELEX = RECIPES[0]


def test_no_recipe_is_an_internal_error_or_takes_long(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "r.yml"
    read_recipe(write_recipe(path, RELEX))  # imports
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kept = refused = 0
    plain = path.read_bytes()
    for text in (*(plain + block.encode() for block in BLOCKS), *mutated_recipes(300)):
        path.write_bytes(text)
        start = time.perf_counter()
        fault = read_recipe(path)
        assert time.perf_counter() - start < SECONDS, text[:2000]
        kept += fault is None
        refused += fault is not None
    assert kept > 20
    assert refused > 150
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rank: 1\nrank: 2\n", "line 5: rank is there twice, first in line 4"),
        ("parameters: {target_step: 9, target_step: 10}\n", "line 4: target_step is there twice"),
        ("1: 2\n", "line 4: the key '1' is no text; put it in quotes"),
        ("on: 2\n", "line 4: the key 'on' is no text"),
        ("a: &a [*a]\n", "line 4: cyclic"),
        ("a: &a {b: *a}\n", "line 4: cyclic"),
        ("a: " + 101 * "[" + 101 * "]", "line 4: nested more than 100 levels deep"),
        (BOMB, "more than 200,000 values, with aliases written out"),
        (MERGE_BOMB, "more than 200,000 values, with aliases written out"),
        ("a: &a " + 60 * "[" + 60 * "]" + "\nb: " + 60 * "[" + "*a" + 60 * "]", "nested more than"),
        ("rank: !!int x\n", "line 4: 'x' is no int"),
        ("rank: !!set {x}\n", "could not determine a constructor for the tag"),
        ("rank: " + 5000 * "9", "is no int"),
        ("rank: " + 400 * "9", "an integer of more than 30 digits"),
        ("x: '" + 2_000_000 * "x" + "'", "longer than 2,000,000 bytes"),
    ],
    ids=range(15),
)
def test_what_yaml_leaves_open_is_refused_with_its_line(
    text: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "r.yml"
    path.write_text(f"merge_method: relex\nbase_model: a/b\nmodels: []\n{text}")
    fault = read_recipe(path)
    assert fault is not None
    assert str(path) in fault
    assert said in fault


def test_anchors_and_merged_keys_are_plain_yaml(tmp_path: Path) -> None:
    path = tmp_path / "r.yml"
    path.write_text(
        "merge_method: relex\nbase_model: &base a/b\n"
        "models:\n- &one {model: a/c@step_1, parameters: {role: observed}}\n"
        "- {<<: *one, model: a/c@step_2}\nparameters: {target_step: 9}\n"
    )
    made = load_recipe(path)
    assert [checkpoint.step for checkpoint in listed_checkpoints(made)] == [1, 2]
    assert "&" not in made.to_yaml()


def test_a_structure_from_python_is_held_to_the_same(tmp_path: Path) -> None:
    def refused(**changes: Any) -> str:
        with pytest.raises(RelexError) as caught:
            load_recipe({**RELEX, **changes})
        return str(caught.value)

    loop: list[Any] = []
    loop.append(loop)
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    bomb: Any = "x"
    for _ in range(9):
        bomb = 10 * [bomb]
    assert "cyclic" in refused(parameters={"rank": loop})
    assert "nested more than 100" in refused(parameters={"rank": deep})
    assert "more than 200,000 values" in refused(parameters={"rank": bomb})
    assert "the key 3 is no text" in refused(parameters={3: 1})
    assert "holds a set" in refused(parameters={"rank": {1}})
    assert "more than 30 digits" in refused(parameters={"rank": 10**5000})
    numbers = {"target_step": np.float64(20), "rank": np.int64(1)}
    assert load_recipe({**RELEX, "parameters": numbers}).to_yaml() == (
        load_recipe({**RELEX, "parameters": {"target_step": 20.0, "rank": 1}}).to_yaml()
    )


@pytest.mark.parametrize(
    ("models", "said"),
    [
        (["a/b@step_{1..1000000}"], "1,000,000 checkpoints, and a recipe takes 10,000 at most"),
        (["a/b@step_{1..1000000000}"], "1,000,000,000 checkpoints"),
        (["a/b@{1..200}_{1..200}"], "40,000 checkpoints"),
        (["a/b@step_{1..6000}", "a/c@step_{1..6000}"], "12,000 checkpoints"),
        (["a/b@step_{1..%s}" % (30 * "9")], "a number that is too long for a step"),
        (["a/b@" + 9 * "{1..1}"], "9 brace ranges"),
        (["a/b@step_{1..9..0}"], "stride"),
    ],
)
def test_a_recipe_of_too_many_checkpoints_is_refused_at_once(models: list[str], said: str) -> None:
    start = time.perf_counter()
    with pytest.raises(RelexError) as caught:
        load_recipe({**RELEX, "models": [{"model": model} for model in models]})
    assert said in str(caught.value)
    assert time.perf_counter() - start < 0.5


def test_a_slip_is_answered_before_mergekit_is_imported(tmp_path: Path) -> None:
    wrong: list[dict[str, Any]] = [
        {"parameters": {"target_step": 9, "rnk": 1}},
        {"base_modle": "a/b"},
        {"merge_method": "relexx"},
        {"models": [{"model": "a/b@step_{1..99999}"}]},
        {"models": [{"model": "a/b@step_1"}]},
        {"parameters": {}},
        {"series": {"repo": "a/b", "observed": "1-9"}, "models": None},
        {"out_dtype": "bf17"},
    ]
    paths = [
        write_recipe(tmp_path / f"{number}.yml", {**RELEX, **change})
        for number, change in enumerate(wrong)
    ]
    code = (
        "import sys\n"
        "from relex_merge.errors import RelexError\n"
        "from relex_merge.recipe.load import load_recipe\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n        load_recipe(path)\n"
        "    except RelexError as error:\n        print(error)\n"
        "assert not {'mergekit', 'torch', 'transformers', 'httpx'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(wrong), done.stdout
