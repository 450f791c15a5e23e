"""What is wrong with a call is told before anything heavy is imported, and all of it at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from relex_merge.cli.merge_options import OPTIONS, READING, TITLE, ShardSize, merging_options
from tests.support.models import Series, write_recipe
from tests.support.terminal import Command

HEAVY = ("mergekit", "torch", "transformers", "peft", "lm_eval", "matplotlib")
COMMANDS = ("run", "recipe", "inspect", "evaluate", "push", "publish-series", "demo")
SCRIPT = """
import sys
from relex_merge.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print("HEAVY:", *(name for name in {heavy!r} if name in sys.modules))
"""


def light(*arguments: object) -> str:
    """The command's words, after a check that nothing heavy was imported for them."""
    script = SCRIPT.format(heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == "HEAVY:", done.stdout
    return done.stdout + done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command: str) -> None:
    assert f"Usage: relex-merge {command}" in light(command, "--help")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read the recipe"),
        ("a: [", "is not YAML"),
        ("merge_method: relex\nbase_modle: x\n", "did you mean base_model?"),
        (
            "merge_method: relex\nbase_model: x/y\nmodels: [{model: x/z@step_1}]\n"
            "parameters: {target_stp: 3}\n",
            "did you mean target_step?",
        ),
        (
            "merge_method: relex\nbase_model: ./nowhere\nmodels: [{model: 'x/z@step_{1..3}'}]\n"
            "parameters: {target_step: 3}\n",
            "./nowhere does not exist",
        ),
    ],
    ids=["missing", "broken", "key", "parameter", "reference"],
)
@pytest.mark.parametrize("command", ["run", "inspect", "evaluate"])
def test_a_faulty_recipe_is_told_before_mergekit_is_imported(
    command: str, text: str | None, message: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "r.yml"
    if text is not None:
        recipe.write_text(text)
    out = [tmp_path / "out"] if command == "run" else []
    said = light(command, recipe, *out)
    assert f"error: {recipe}" in said or "error: cannot" in said or "error: ./now" in said
    assert message in said


def test_faults_that_have_nothing_to_do_with_each_other_are_told_at_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").touch()
    said = light("run", tmp_path / "r.yml", out, "--reuse", tmp_path / "gram").splitlines()
    errors = [line for line in said if line.startswith("error: ")]
    assert len(errors) == 3
    assert "r.yml" in errors[0]
    assert f"{out} is not empty" in errors[1]
    assert "--reuse" in errors[2]
    assert list(tmp_path.iterdir()) == [out]


def test_an_unknown_option_is_told_before_anything_is_imported() -> None:
    assert "No such option '--forse'" in light("run", "r.yml", "out", "--forse")


def test_what_refuses_a_push_is_told_before_mergekit_is_imported(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yml"
    text = "merge_method: relex\nbase_model: x/y\nmodels: [{model: 'x/z@step_{1..3}'}]\n"
    recipe.write_text(text + "parameters: {target_step: 3}\n")
    said = light("run", recipe, tmp_path / "out", "--push-to", "me/model")
    assert "publishing needs an access token" in said


def test_the_hub_is_turned_to_before_mergekit_is_imported(tmp_path: Path) -> None:
    """What is no repo id is told by the same call that asks whether the Hub answers."""
    recipe = tmp_path / "r.yml"
    models = "models: [{model: 'x..z/y@step_{1..3}'}]\nbase_model: x..y/z"
    series = f"series: {{repo: x..z/y}}\nbase_model: {tmp_path}"
    for command, named in (("run", models), ("inspect", series), ("evaluate", series)):
        recipe.write_text(f"merge_method: relex\n{named}\nparameters: {{target_step: 3}}\n")
        out = [tmp_path / "out"] if command == "run" else []
        assert "no repo id, which is namespace/name" in light(command, recipe, *out)


# ---- mergekit's own options


def params(command: click.Command) -> dict[str, Any]:
    """What defines each option: how it is written, its default, whether it takes a value."""
    found = {}
    for param in command.params:
        assert isinstance(param, click.Option)
        kind = param.type.name.removesuffix(" range")
        found[param.name] = (
            sorted(param.opts),
            sorted(param.secondary_opts),
            param.default,
            kind,
            param.is_flag,
            param.count,
        )
    return found


def test_the_options_are_those_of_mergekit() -> None:
    from mergekit.options import MergeOptions, add_merge_options

    ours = click.command()(merging_options(lambda **_: None))
    theirs = click.command()(add_merge_options(lambda **_: None))
    assert list(OPTIONS) == list(MergeOptions.model_fields)
    assert params(ours) == params(theirs)
    defaults = {name: option.default for name, option in OPTIONS.items()}
    assert MergeOptions(**defaults) == MergeOptions()


@pytest.mark.parametrize("text", ["5B", "500M", "100K", "7", "12b"])
def test_a_shard_size_is_read_as_mergekit_reads_it(text: str) -> None:
    from mergekit.common import parse_kmb

    assert ShardSize().convert(text, None, None) == parse_kmb(text)


def test_options_reach_mergekit(
    relex: Command, series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from relex_merge import api

    seen: list[Any] = []

    def forecast(*_: Any, options: Any, **__: Any) -> str:
        seen.append(options)
        return ""

    monkeypatch.setattr(api, "forecast", forecast)
    recipe = write_recipe(tmp_path / "r.yml", series.recipe())
    given = ["--no-copy-tokenizer", "--out-shard-size", "2M", "-j", "1", "--quiet", "--cuda"]
    done = relex("run", recipe, tmp_path / "out", "--dry-run", *given)
    assert done.code == 0, done.err
    (options,) = seen
    assert (options.copy_tokenizer, options.out_shard_size) == (False, 2 * 10**6)
    assert (options.num_threads, options.quiet, options.device) == (1, True, "cuda")


@pytest.mark.parametrize("command", ["run", "inspect", "evaluate"])
def test_help_shows_mergekits_options_apart_and_describes_the_arguments(command: str) -> None:
    said = light(command, "--help")
    own, _, merging = said.partition(TITLE)
    assert "Arguments:\n  RECIPE " in own
    shown = OPTIONS if command == "run" else READING
    for name in OPTIONS:
        spelt = {"verbosity": "-v", "num_threads": "-j, --num-threads"}.get(
            name, f"--{name.replace('_', '-')}"
        )
        assert (f"\n  {spelt}" in merging) == (name in shown), name
        assert f"\n  {spelt}" not in own
