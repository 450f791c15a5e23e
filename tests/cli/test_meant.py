"""A call that is wrong in a likely way: the message says what was meant and what to type."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.models import Series, write_recipe
from tests.support.terminal import Command

pytestmark = pytest.mark.usefixtures("no_figure")


@pytest.fixture
def recipe(series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a recipe in the working directory."""
    monkeypatch.chdir(tmp_path)
    return write_recipe(Path("recipe.yml"), series.recipe()).name


@pytest.mark.parametrize("command", ["run", "inspect", "evaluate"])
def test_a_folder_of_checkpoints_in_place_of_a_recipe(
    relex: Command, series: Series, tmp_path: Path, command: str
) -> None:
    folder = series.base.parent
    done = relex(command, folder, *[tmp_path / "out"] * (command == "run"))
    assert done.code == 1
    assert f"relex-merge recipe {folder} --target-step N -o recipe.yml" in done.err


def test_the_folder_of_a_model_in_place_of_its_recipe(relex: Command, tmp_path: Path) -> None:
    (tmp_path / "mergekit_config.yml").touch()
    done = relex("run", tmp_path, tmp_path / "out")
    assert f"its recipe is {tmp_path}/mergekit_config.yml" in done.err


@pytest.mark.parametrize("command", ["run", "inspect", "evaluate"])
def test_a_hub_repo_in_place_of_a_recipe(relex: Command, tmp_path: Path, command: str) -> None:
    done = relex(command, "org/run", *[tmp_path / "out"] * (command == "run"))
    assert done.code == 1
    assert "relex-merge recipe org/run --target-step N -o recipe.yml" in done.err


def test_swapped_arguments(relex: Command, recipe: str) -> None:
    done = relex("run", "my out", recipe)
    assert done.code == 2
    assert "RECIPE comes first; did you mean: relex-merge run recipe.yml 'my out'" in done.err
    assert not Path("my out").exists()


@pytest.mark.parametrize("command", ["push", "publish-series"])
def test_the_repo_before_the_folder(relex: Command, series: Series, command: str) -> None:
    folder = series.base.parent
    done = relex(command, "me/model", folder)
    assert done.code == 2
    assert f"did you mean: relex-merge {command} {folder} me/model" in done.err


@pytest.mark.parametrize("name", ["recipe.yaml", "recpie.yml", "Recipe.yml"])
def test_a_recipe_of_nearly_that_name(relex: Command, recipe: str, name: str) -> None:
    done = relex("run", name, "out")
    assert done.code == 1
    assert done.err == (
        f"error: cannot read the recipe {name}: No such file or directory; "
        "did you mean recipe.yml?\n"
    )


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (("runn", "r.yml", "out"), "did you mean: relex-merge run r.yml out"),
        (("inspekt", "r.yml"), "did you mean: relex-merge inspect r.yml"),
        (("r.yml", "out"), "did you mean: relex-merge run r.yml out"),
        (("r.yml",), "did you mean: relex-merge run r.yml OUT"),
        (("/",), "relex-merge recipe / --target-step N -o recipe.yml"),
        (("xyz",), "there are run, recipe, inspect, evaluate, push, publish-series, demo"),
    ],
)
def test_a_command_that_is_none(relex: Command, given: tuple[str, ...], meant: str) -> None:
    done = relex(*given)
    assert done.code == 2
    assert f"there is no command {given[0]!r}" in done.err
    assert meant in done.err


@pytest.mark.parametrize("command", ["run", "inspect", "evaluate"])
@pytest.mark.parametrize(
    ("option", "value", "lines"),
    [
        ("--predictor", "damped", "parameters:\n    predictor: damped\n"),
        ("--window", "7", "parameters:\n    window: 7\n"),
        ("--degree=2", None, "parameters:\n    degree: 2\n"),
        ("--out-dtype", "bfloat16", "  out_dtype: bfloat16\n"),
        ("--mode", None, "parameters:\n    mode: …\n"),
    ],
)
def test_what_stands_in_the_recipe_is_no_option(
    relex: Command, command: str, option: str, value: str | None, lines: str
) -> None:
    given = [option] if value is None else [option, value]
    done = relex(command, "r.yml", *["out"] * (command == "run"), *given)
    assert done.code == 2
    assert f"{option.partition('=')[0]} is no option: it stands in the recipe" in done.err
    assert lines in done.err


def test_rank_is_of_the_recipe_where_inspect_draws_no_coefficients(
    relex: Command, recipe: str
) -> None:
    for done in (relex("inspect", recipe, "--rank", 2), relex("run", recipe, "out", "--rank", 2)):
        assert done.code == 2
        assert "parameters:\n    rank: 2\n" in done.err


def test_options_of_the_command_that_writes_recipes(relex: Command, recipe: str) -> None:
    done = relex("run", recipe, "out", "--observe", "1-75")
    assert done.code == 2
    assert "relex-merge recipe SERIES --target-step N -o recipe.yml --observe 1-75" in done.err


def test_an_option_that_is_nothing_else_is_clicks_own_affair(relex: Command) -> None:
    done = relex("run", "r.yml", "out", "--forse")
    assert done.code == 2
    assert "No such option '--forse'" in done.err
    assert "--force" in done.err


@pytest.mark.parametrize(
    ("given", "meant"), [("gpu", "cuda"), ("GPU:1", "cuda:1"), ("metal", "mps")]
)
def test_a_device_by_another_name(relex: Command, recipe: str, given: str, meant: str) -> None:
    done = relex("run", recipe, "out", "--device", given)
    assert done.code == 2
    assert f"there is no device {given!r}; did you mean {meant}?" in done.err
    assert "mtia" not in done.err  # torch's own list


def test_auto_is_a_target_step(relex: Command, recipe: str) -> None:
    done = relex("run", recipe, "out", "--target-step", "auto", "--yes", "--quiet")
    assert done.code == 0, done.err
    for again in (recipe, "out"):
        done = relex("inspect", again, "--target-step", "auto", "--quiet")
        assert done.code == 0, done.err
        assert "step 9" in done.out
    done = relex("inspect", recipe, "--target-step", "soon")
    assert done.code == 2
    assert "'soon' is no step; give a number, or auto" in done.err
    done = relex("run", recipe, "more", "--target-step", "auto", "--target-step", 40)
    assert done.code == 1
    assert "auto chooses one, so give it alone" in done.err


@pytest.mark.parametrize("name", ["x" * 300, "~nobody/at/all", "x" * 300 + ".yml"])
def test_names_that_no_disk_takes(relex: Command, tmp_path: Path, name: str) -> None:
    for arguments in (
        (name,),
        ("run", name, tmp_path / "out"),
        ("recipe", name),
        ("push", name, name),
    ):
        done = relex(*arguments)
        assert done.code in (1, 2)
        assert name in done.err
        assert "Errno" not in done.err
