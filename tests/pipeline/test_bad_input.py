"""What bad recipes and references get: exit code 1, one message, and nothing anywhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.fake_hub import Fault, Hub
from tests.fake_hub.building import WRITE_TOKEN
from tests.support.models import Series, write_recipe
from tests.support.refusals import Refuse
from tests.support.terminal import Command

pytestmark = pytest.mark.usefixtures("no_figure")


# the Hub


def test_a_revision_that_does_not_exist(refuse: Refuse, hub: Hub, mine: Series) -> None:
    for step in (1, 2, 30, 31, 32, 33, 500):
        hub.commit("org/run", {"config.json": b"{}"}, branch=f"step_{step}")
    recipe = {**mine.recipe(), "models": [{"model": f"org/run@step_{s}"} for s in (1, 3)]}
    message = refuse(recipe)
    assert "org/run has no revision step_3" in message
    assert "step_2" in message
    assert "step_1" in message
    assert "step_500" not in message


def test_a_repo_that_is_not_found_or_out_of_reach(
    refuse: Refuse, hub: Hub, mine: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.commit_folder("org/secret", mine.base)
    hub.repos["org/secret"].private = True
    hub.add_token("hf_StrangersTokenDoNotPrint", orgs=())
    for repo, token, named in [
        ("org/nothing", WRITE_TOKEN, "org/nothing"),
        ("org/secret", "hf_StrangersTokenDoNotPrint", "org/secret"),
        ("org/secret", "hf_TokenThatNobodyHasDoNotPrint", "does not accept the token"),
    ]:
        monkeypatch.setenv("HF_TOKEN", token)
        message = refuse({**mine.recipe(), "base_model": repo})
        assert named in message
        assert "hf auth login" in message
        assert token not in message


def test_a_folder_that_does_not_exist(refuse: Refuse, mine: Series, tmp_path: Path) -> None:
    recipe = mine.recipe()
    recipe["models"][1]["model"] = str(tmp_path / "run/step_3")
    message = refuse(recipe)
    assert str(tmp_path / "run/step_3") in message
    assert "does not exist" in message


def test_a_local_folder_with_a_revision(refuse: Refuse, mine: Series) -> None:
    recipe = mine.recipe()
    recipe["models"][1]["model"] += "@step_2"
    assert "a local folder has no revisions" in refuse(recipe)


def test_a_hub_that_cannot_be_reached(
    refuse: Refuse, hub: Hub, mine: Series, no_waiting: list[float]
) -> None:
    hub.faults.add(Fault("/api/models/org/base", times=None, drop="before"))
    message = refuse({**mine.recipe(), "base_model": "org/base"})
    assert "org/base" in message
    assert "no connection to the Hub" in message


# the recipe


def test_fewer_than_two_checkpoints(refuse: Refuse, mine: Series) -> None:
    recipe = mine.recipe()
    recipe["models"] = recipe["models"][:1]
    assert "at least two" in refuse(recipe)
    # the base does not count
    recipe["models"].append({"model": str(mine.base)})
    assert "at least two" in refuse(recipe)
    recipe["models"] = []
    assert "at least two" in refuse(recipe)


def test_two_checkpoints_with_the_same_step(refuse: Refuse, mine: Series) -> None:
    recipe = mine.recipe()
    recipe["models"][0]["parameters"] = {"step": 4}
    message = refuse(recipe)
    assert str(mine.checkpoints[0]) in message
    assert str(mine.checkpoints[2]) in message
    assert "the same step 4" in message
    recipe = mine.recipe()
    recipe["models"].append(recipe["models"][0])
    assert "the same step 1" in refuse(recipe)


def test_a_step_that_cannot_be_inferred(refuse: Refuse, mine: Series) -> None:
    last = mine.checkpoints[1].rename(mine.checkpoints[1].with_name("last"))
    recipe = mine.recipe()
    recipe["models"][1]["model"] = str(last)
    message = refuse(recipe)
    assert f"cannot tell the step of {last}" in message
    assert "{step: N}" in message


@pytest.mark.parametrize("step", ["soon", -1, float("nan"), float("inf"), [1], True])
def test_a_step_that_is_no_step(step: Any, refuse: Refuse, mine: Series) -> None:
    recipe = mine.recipe()
    recipe["models"][1]["parameters"] = {"step": step}
    message = refuse(recipe)
    assert str(mine.checkpoints[1]) in message
    assert "step" in message


def test_no_base(refuse: Refuse, mine: Series) -> None:
    recipe = mine.recipe()
    del recipe["base_model"]
    message = refuse(recipe)
    assert "base_model is missing" in message
    assert "run started from" in message


def test_target_step_missing_or_not_a_number(refuse: Refuse, mine: Series) -> None:
    message = refuse(mine.recipe(None))
    assert "target_step is missing" in message
    assert "--target-step N" in message
    for wrong in ("soon", True, float("nan"), float("inf"), -5, [{"filter": "mlp", "value": "x"}]):
        recipe = mine.recipe()
        recipe["parameters"]["target_step"] = wrong
        assert "target_step" in refuse(recipe), wrong
    assert "target_step" in refuse(mine.recipe(), "--target-step", "nan")


def test_a_filter_list_that_leaves_tensors_out(refuse: Refuse, mine: Series) -> None:
    recipe = mine.recipe()
    recipe["parameters"]["target_step"] = [{"filter": "mlp", "value": 20}]
    message = refuse(recipe)
    assert "target_step" in message
    assert "no filter" in message


@pytest.mark.parametrize(
    ("parameter", "values"),
    [
        ("rank", (0, -1, 6, 1.5, "two")),
        ("degree", (0, 5, "line")),
        ("window", (0, 1, 6, "all")),
        ("mode", ("guess", 3)),
    ],
)
def test_parameters_out_of_their_range(
    parameter: str, values: tuple[Any, ...], refuse: Refuse, mine: Series
) -> None:
    for value in values:
        message = refuse(mine.recipe(**{parameter: value}))
        assert parameter in message, value
        filtered: Any = [{"filter": "mlp", "value": value}, {"value": 2}]
        if parameter != "mode":
            assert parameter in refuse(mine.recipe(**{parameter: filtered})), value


def test_reconstruct_for_a_step_that_was_not_observed(refuse: Refuse, mine: Series) -> None:
    message = refuse(mine.recipe(5, mode="reconstruct"))
    assert "5 was not" in message
    assert "1, 2, 4, 7, 9" in message


@pytest.mark.parametrize(
    ("recipe", "culprit"),
    [
        (b"merge_method: [relex", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"- a list", "not a recipe"),
        (b"models: []", "merge_method"),
    ],
)
def test_a_recipe_that_is_none(recipe: bytes, culprit: str, refuse: Refuse, tmp_path: Path) -> None:
    message = refuse(recipe)
    assert culprit in message
    assert str(tmp_path / "recipe.yml") in message


def test_unknown_parameters_keys_and_methods(refuse: Refuse, mine: Series) -> None:
    message = refuse(mine.recipe(rnk=2))
    assert "'rnk'" in message
    assert "did you mean rank?" in message
    message = refuse({**mine.recipe(), "out_dtyp": "bfloat16"})
    assert "did you mean out_dtype?" in message
    message = refuse({**mine.recipe(), "merge_method": "relx"})
    assert "did you mean relex?" in message
    recipe = mine.recipe()
    recipe["models"][0]["parameters"] = {"weight": 1}
    assert "'weight'" in refuse(recipe)
    for key in ("dtype", "out_dtype"):
        message = refuse({**mine.recipe(), key: "float12"})
        assert "float12" in message


# secrets


def test_a_token_is_in_no_message_and_no_traceback(
    relex: Command, hub: Hub, mine: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.commit_folder("org/base", mine.base)
    recipe = write_recipe(tmp_path / "r.yml", {**mine.recipe(), "base_model": "org/base"})
    for token in ("hf_TokenThatNobodyHasDoNotPrint", WRITE_TOKEN, "no-usual-token"):
        monkeypatch.setenv("HF_TOKEN", token)
        hub.faults.add(Fault("/api/models/org/base", status=403, message=f"no, {token}"))
        done = relex("run", "--yes", recipe, tmp_path / "out", "-v")
        assert done.code == 1
        assert "Traceback" in done.err
        assert "org/base" in done.err
        assert token not in done.out + done.err
        hub.faults.clear()


def test_v_shows_where_it_happened(relex: Command, mine: Series, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yml", mine.recipe(rank=9))
    done = relex("run", "--yes", recipe, tmp_path / "out", "-v")
    assert done.code == 1
    assert re.search(r'File ".*relex_merge/[a-z_/]+\.py", line', done.err)
    assert re.search(r"^error: .*rank is 9", done.err, re.MULTILINE)
