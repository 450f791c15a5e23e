"""Promises of ``series:`` in a recipe, in place of ``models:``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import relex_merge
from relex_merge.errors import RelexError
from relex_merge.recipe.load import load_recipe
from tests.fake_hub import Hub
from tests.fake_hub.access import Token
from tests.support.models import STEPS, Series, expected, read_weights, worst_error, write_recipe
from tests.support.terminal import Command

FLOAT32 = 1e-6
RUN = "org/run"
pytestmark = pytest.mark.usefixtures("no_figure")


def recipe(series: Series, block: Any, **changes: Any) -> dict[str, Any]:
    return {
        "merge_method": "relex",
        "base_model": str(series.base),
        "series": block,
        "parameters": {"target_step": 20},
        **changes,
    }


def models(series: Series, block: Any) -> list[Any]:
    return list(load_recipe(recipe(series, block)).settings["models"])


@pytest.fixture
def branches(hub: Hub, series: Series) -> None:
    for step, folder in zip(STEPS, series.checkpoints, strict=True):
        hub.commit_folder(RUN, folder, branch=f"step_{step}")


def test_a_series_on_the_hub_runs_and_its_expansion_is_what_is_saved_and_pushed(
    relex: Command,
    hub: Hub,
    hub_login: Token,
    branches: None,
    series: Series,
    tmp_path: Path,
) -> None:
    path = write_recipe(tmp_path / "r.yml", recipe(series, {"repo": RUN, "observe": "1-9"}))
    done = relex("run", "--yes", path, tmp_path / "out", "--quiet", "--push-to", "tester/end")
    assert done.code == 0, done.err
    assert worst_error(read_weights(tmp_path / "out"), expected(series)) < FLOAT32
    for text in (
        (tmp_path / "out/mergekit_config.yml").read_text(),
        hub.files("tester/end", "relex-step-20")["mergekit_config.yml"].decode(),
    ):
        saved = yaml.safe_load(text)
        assert "series" not in saved
        assert saved["models"] == [{"model": f"{RUN}@step_{step}"} for step in STEPS]
    # what was saved gives the same again
    again = relex_merge.extrapolate(
        tmp_path / "out/mergekit_config.yml", tmp_path / "b", quiet=True
    )
    assert read_weights(again.out).keys() == read_weights(tmp_path / "out").keys()


def test_keys_keep_their_order_and_the_block_its_place(branches: None, series: Series) -> None:
    made = load_recipe(recipe(series, {"repo": RUN}))
    assert list(made.settings) == ["merge_method", "base_model", "models", "parameters"]


def test_steps_are_written_out_where_references_do_not_say_them(hub: Hub, series: Series) -> None:
    shas = [
        hub.commit_folder(RUN, folder, message=f"Training in progress, step {step}")
        for step, folder in zip(STEPS, series.checkpoints, strict=True)
    ]
    assert models(series, {"repo": f"{RUN}@main"}) == [
        {"model": f"{RUN}@{sha}", "parameters": {"step": step}}
        for step, sha in zip(STEPS, shas, strict=True)
    ]


@pytest.mark.parametrize("key", ["repo", "folder"])
def test_a_folder_on_this_disk(key: str, series: Series) -> None:
    found = models(series, {key: str(series.base.parent)})
    assert found == [{"model": str(folder)} for folder in series.checkpoints]


@pytest.mark.parametrize(
    ("observe", "steps"),
    [
        ("1-4", [1, 2, 4]),
        ("1-9:3", [1, 4, 7]),
        ([2, 9], [2, 9]),
        ("2,9", [2, 9]),
        ("50%", [1, 2, 4]),
        (None, list(STEPS)),
    ],
)
def test_observe_is_that_of_the_command(
    observe: Any, steps: list[int], branches: None, series: Series
) -> None:
    found = models(series, {"repo": RUN, "observe": observe})
    assert [entry["model"] for entry in found] == [f"{RUN}@step_{step}" for step in steps]


def test_the_pattern_decides(hub: Hub, branches: None, series: Series) -> None:
    for step in (10, 20, 30):
        hub.branch(RUN, f"other-{step}", at="step_1")
    found = models(series, {"repo": RUN, "pattern": r"other-(\d+)"})
    assert [entry["model"] for entry in found] == [f"{RUN}@other-{step}" for step in (10, 20, 30)]


def test_inspect_reads_a_series_too(branches: None, series: Series) -> None:
    report = relex_merge.inspect(recipe(series, {"repo": RUN}), quiet=True)
    assert [c["step"] for c in report["checkpoints"]] == list(STEPS)
    assert json.dumps(report)


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("org/run", "series is 'org/run'; it must be a mapping, for example {repo: org/name"),
        (
            {"repo": "org/run", "observed": "1-4"},
            "unknown key 'observed' in series; did you mean observe?",
        ),
        ({"repo": "org/run", "xyz": 1}, "known: folder, observe, pattern, repo"),
        (None, "series is None; it must be a mapping"),
        ({"observe": "1-4"}, "series needs one repo or folder"),
        ({"repo": "org/run", "folder": "/runs"}, "series needs one repo or folder"),
        ({"repo": 5}, "repo of series is 5; it must be a name on the Hub"),
        (
            {"repo": "org/run", "pattern": 5},
            "pattern of series is 5; it must be a regular expression in quotes",
        ),
        ({"repo": "org/run", "pattern": r"step_\d+"}, "has no group"),
        ({"repo": "org/run", "observe": "3"}, "r: series: observe 3: the series has no such step"),
        ({"repo": "org/run", "observe": True}, "observe 'True' is no choice of steps"),
        ({"repo": "org/nothing"}, "series: org/nothing is not on the Hub"),
        ({"folder": "/nowhere/at/all"}, "/nowhere/at/all is not a folder"),
    ],
)
def test_what_is_wrong_with_a_block_is_named(
    block: Any, said: str, branches: None, series: Series
) -> None:
    with pytest.raises(RelexError) as caught:
        load_recipe(recipe(series, block))
    assert said in str(caught.value).replace("the recipe:", "r:")


def test_it_stands_in_place_of_models_and_only_for_relex(branches: None, series: Series) -> None:
    both = {**series.recipe(20), "series": {"repo": RUN}}
    with pytest.raises(RelexError, match="has both series and models"):
        load_recipe(both)
    with pytest.raises(RelexError, match="series is for merge_method: relex"):
        load_recipe(recipe(series, {"repo": RUN}, merge_method="linear"))
    with pytest.raises(RelexError, match=r"parameters\.target_step is missing"):
        load_recipe(recipe(series, {"repo": RUN}, parameters={}))
