"""What ``relex-merge run`` takes and where it writes: targets, OUT, --force, usage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import relex_merge
from relex_merge.errors import RelexError
from relex_merge.pipeline.run import Result
from tests.support.models import (
    Series,
    expected,
    make_series,
    read_weights,
    worst_error,
    write_recipe,
)
from tests.support.outputs import contents
from tests.support.terminal import Command, shell

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


# several targets


def test_several_targets_are_the_same_models_from_one_pass(
    relex: Command, series: Series, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "r.yml", series.recipe())
    targets = ("--target-step", 20, "--target-step", 50, "--target-step", 12.5)
    done = relex("run", "--yes", recipe, tmp_path / "out", *targets)
    assert done.code == 0, done.err
    assert names(tmp_path / "out") == {"step-20", "step-50", "step-12.5"}
    for target in (20, 50, 12.5):
        assert (
            relex("run", "--yes", recipe, tmp_path / f"{target}", "--target-step", target).code == 0
        )
        many, one = contents(tmp_path / f"out/step-{target:g}"), contents(tmp_path / f"{target}")
        assert many.keys() == one.keys()
        # The card names the folder; a run of one target writes it as 20.0 in its recipe.
        for name in ("model.safetensors", "relex_report.json", "config.json", "tokenizer.json"):
            assert many[name] == one[name], name
        assert json.loads(many["relex_report.json"])["target_step"] == target
        assert yaml.safe_load(many["mergekit_config.yml"])["parameters"]["target_step"] == target


def test_three_targets_read_the_checkpoints_once(tmp_path: Path) -> None:
    series = make_series(tmp_path, steps=(1, 2, 3), vocab_size=8192)
    stored = sum(path.stat().st_size for path in tmp_path.rglob("model.safetensors"))
    relex_merge.extrapolate(series.recipe(), tmp_path / "warm", quiet=True)
    before = _bytes_read()
    relex_merge.extrapolate(series.recipe(), tmp_path / "out", target_step=[5, 6, 7], quiet=True)
    assert _bytes_read() - before < 1.5 * stored


def _bytes_read() -> int:
    """Bytes that this process has asked the kernel for."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_a_target_of_zero_is_a_target(relex: Command, series: Series, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yml", series.recipe(20))
    assert relex("run", "--yes", recipe, tmp_path / "out", "--target-step", 0).code == 0
    assert worst_error(read_weights(tmp_path / "out"), expected(series, 0)) < FLOAT32


def test_a_target_on_the_command_line_needs_none_in_the_recipe(
    relex: Command, series: Series, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "r.yml", series.recipe(None))
    for i, targets in enumerate([("--target-step", 20), ("--target-step", 20, "--target-step", 5)]):
        done = relex("run", "--yes", recipe, tmp_path / f"out{i}", *targets)
        assert done.code == 0, done.err
    assert worst_error(read_weights(tmp_path / "out1/step-5"), expected(series, 5)) < FLOAT32


# where the output goes


def test_a_folder_that_is_not_empty_is_refused_and_replaced_by_force(
    relex: Command, series: Series, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "r.yml", series.recipe())
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    (out / "sub/mine.txt").write_text("mine")
    done = relex("run", "--yes", recipe, out)
    assert done.code == 1
    assert f"{out} is not empty" in done.err
    assert "--force" in done.err
    assert contents(out) == {"sub/mine.txt": b"mine"}
    assert relex("run", "--yes", recipe, out, "--force").code == 0
    assert not (out / "sub").exists()
    assert names(out) >= WHOLE
    assert names(tmp_path) == {"r.yml", "out"}


def test_force_keeps_the_old_output_when_the_run_fails(
    relex: Command, series: Series, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    recipe = write_recipe(tmp_path / "r.yml", series.recipe(20, rank=9))
    assert relex("run", "--yes", recipe, out, "--force").code == 1
    assert contents(out) == {"mine.txt": b"mine"}
    assert names(tmp_path) == {"r.yml", "out"}


def test_force_never_deletes_what_is_being_read(relex: Command, tmp_path: Path) -> None:
    series = make_series(tmp_path / "run", steps=(1, 2, 3))
    recipe = write_recipe(tmp_path / "r.yml", series.recipe())
    for out in (series.checkpoints[1], series.base, tmp_path / "run"):
        before = contents(tmp_path / "run")
        done = relex("run", "--yes", recipe, out, "--force")
        assert done.code == 1
        assert str(out) in done.err
        assert contents(tmp_path / "run") == before


def test_an_empty_folder_is_taken_and_a_file_refused(
    relex: Command, series: Series, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "r.yml", series.recipe())
    (tmp_path / "out").mkdir()
    assert relex("run", "--yes", recipe, tmp_path / "out").code == 0
    for force in ((), ("--force",)):
        done = relex("run", "--yes", recipe, recipe, *force)
        assert done.code == 1
        assert "is a file" in done.err
    assert recipe.is_file()


# the command itself


def test_progress_is_shown_and_quiet_is_silent(
    relex: Command, series: Series, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "r.yml", series.recipe())
    assert "reading checkpoints" in relex("run", "--yes", recipe, tmp_path / "a").err
    assert "reading checkpoints" not in relex("run", "--yes", recipe, tmp_path / "b", "--quiet").err


def test_wrong_usage_exits_with_2(relex: Command, tmp_path: Path) -> None:
    for arguments in (
        ("run",),
        ("run", "r.yml", "out", "--no-such-option"),
        ("run", "r.yml", "out", "--target-step", "soon"),
        ("run", "r.yml", "out", "--memory-budget", "much"),
        ("run", "r.yml", "out", "--revision", "x"),
        ("run", "r.yml", "out", "--create-pr"),
        ("run", "r.yml", "out", "--private"),
        ("run", "r.yml", "out", "--push-to", "a/b", "--create-pr", "--revision", "x"),
        ("inspect", "r.yml", "--coefficients", "c.png"),
        ("inspect", "r.yml", "--json", "no/such/folder/report.json"),
        ("nothing",),
    ):
        assert relex(*arguments).code == 2, arguments
    assert "relex-merge run r.yml" in relex("r.yml", "out").err


def test_values_that_mergekits_options_cannot_have(relex: Command) -> None:
    for command in (("run", "r.yml", "out"), ("inspect", "r.yml")):
        for option, value in (
            ("--num-threads", "-3"),
            ("--num-threads", "0"),
            ("--random-seed", "-1"),
            ("--out-shard-size", "some"),
        ):
            done = relex(*command, option, value)
            assert done.code == 2, done.err
            assert option in done.err
            assert value in done.err


def test_the_command_as_a_process_of_its_own(series: Series, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yml", series.recipe())
    done = shell("run", "--yes", recipe, tmp_path / "out", "--num-threads", 1, "--random-seed", 3)
    assert done.returncode == 0, done.stderr
    run(series, tmp_path / "same")
    ours, same = contents(tmp_path / "out"), contents(tmp_path / "same")
    assert ours["model.safetensors"] == same["model.safetensors"]
    assert ours["relex_report.json"] == same["relex_report.json"]


def test_help_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    script = (
        "import sys\nfrom relex_merge.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'mergekit', 'transformers', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in ("run", "push", "inspect", "demo"):
        assert name in done.stdout


def test_the_python_function_returns_where_and_what(series: Series, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yml", series.recipe())
    result = relex_merge.extrapolate(recipe, tmp_path / "out", target_step=30, quiet=True)
    assert result.out == tmp_path / "out"
    assert result.report == json.loads((tmp_path / "out/relex_report.json").read_text())
    assert result.outputs == {30: tmp_path / "out"}
    several = relex_merge.extrapolate(recipe, tmp_path / "two", target_step=[30, 40], quiet=True)
    assert several.outputs == {30: tmp_path / "two/step-30", 40: tmp_path / "two/step-40"}
    for wrong in ([], [30, 30]):
        with pytest.raises(RelexError, match="target steps"):
            relex_merge.extrapolate(recipe, tmp_path / "no", target_step=wrong, quiet=True)
