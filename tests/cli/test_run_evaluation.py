"""``run`` follows the strongest evidence there is: --strict, the terminal, what is written."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import relex_merge
from relex_merge.report.candidates import Candidate
from relex_merge.report.evaluation_file import evaluation_beside, write_evaluation
from tests.support.evaluations import HALF, LINE, fingerprint, make_evaluation, sums
from tests.support.models import Series, make_series, write_recipe
from tests.support.refusals import sliced
from tests.support.terminal import Command

pytestmark = pytest.mark.usefixtures("no_figure")
LAST = 10.0
YES: dict[str, Any] = {"kl": 0.05, "skill": 0.5}
NO: dict[str, Any] = {"kl": 2.0, "skill": -0.5}


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return make_series(tmp_path_factory.mktemp("walk"), steps=tuple(range(1, 11)))


@pytest.fixture(scope="module")
def forth(walked: Series) -> dict[str, Any]:
    """Weights on a line: they say yes."""
    return walked.recipe(20)


@pytest.fixture(scope="module")
def back(walked: Series) -> dict[str, Any]:
    """Weights that turn round half way: they say no."""
    recipe = walked.recipe(20, degree=3)
    there_and_back = (0, 2, 5, 9, 9, 8, 6, 4, 2, 1)
    models = [
        {**recipe["models"][i], "parameters": {"step": step}}
        for step, i in enumerate(there_and_back, start=1)
    ]
    return {**recipe, "models": models}


def write(file: Path, recipe: dict[str, Any], **changes: Any) -> Path:
    found = make_evaluation(series=fingerprint(recipe), last_step=LAST, **changes)
    write_evaluation(file, found)
    return file


def report(out: Path) -> Any:
    return json.loads((out / "relex_report.json").read_text())


def test_function_says_yes_where_weights_say_no(
    back: dict[str, Any], relex: Command, tmp_path: Path
) -> None:
    path, out = write_recipe(tmp_path / "r.yml", back), tmp_path / "out"
    done = relex("run", path, out, "--strict", "--quiet")
    assert done.code == 3
    assert not out.exists()
    file = write(tmp_path / "measured.json", back, **YES)
    done = relex("run", path, out, "--strict", "--quiet", "--evaluation", file)
    assert done.code == 0, done.err
    assert "verdict for step 20: extrapolate (evidence: function)" in done.err
    verdict = report(out)["verdict"]
    assert (verdict["verdict"], verdict["evidence"]) == ("extrapolate", "function")
    assert [(s["evidence"], s["verdict"]) for s in verdict["statements"]] == [
        ("function", "extrapolate"),
        ("geometry", "do not extrapolate"),
    ]
    function = json.loads(file.read_text())["function"]
    assert report(out)["evaluation"]["function"] == function


def test_function_says_no_where_weights_say_yes(
    forth: dict[str, Any], relex: Command, tmp_path: Path
) -> None:
    path, out = write_recipe(tmp_path / "r.yml", forth), tmp_path / "out"
    file = write(tmp_path / "measured.json", forth, **NO)
    done = relex("run", path, out, "--strict", "--quiet", "--evaluation", file)
    assert done.code == 3
    assert "do not extrapolate (evidence: function)" in done.err
    assert {p.name for p in tmp_path.iterdir()} == {"r.yml", "measured.json"}
    done = relex("run", path, out, "--quiet", "--evaluation", file, "--yes")
    assert done.code == 0
    assert "WARNING: writing a model although its evaluation on text speaks against" in done.err
    assert relex("run", path, tmp_path / "plain", "--strict", "--quiet").code == 0


def test_labels_outrank_function(forth: dict[str, Any], relex: Command, tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "r.yml", forth)
    worse = write(tmp_path / "no.json", forth, **YES, tasks=sums((-0.5, -0.3), 0.1))
    done = relex("run", path, tmp_path / "no", "--strict", "--quiet", "--evaluation", worse)
    assert done.code == 3
    assert "(evidence: labels)" in done.err
    better = write(tmp_path / "yes.json", forth, **NO, tasks=sums())
    done = relex("run", path, tmp_path / "yes", "--strict", "--quiet", "--evaluation", better)
    assert done.code == 0
    assert report(tmp_path / "yes")["verdict"]["evidence"] == "labels"


def test_scores_on_questions_that_choose_do_not_count(
    forth: dict[str, Any], relex: Command, tmp_path: Path
) -> None:
    tasks = sums()
    for entry in tasks["sums"]:
        entry["split"] = "choosing"
    file = write(tmp_path / "no.json", forth, **NO, tasks=tasks)
    path = write_recipe(tmp_path / "r.yml", forth)
    done = relex("run", path, tmp_path / "out", "--strict", "--quiet", "--evaluation", file)
    assert done.code == 3
    assert "(evidence: function)" in done.err


def test_it_is_found_beside_the_recipe_with_a_word(
    back: dict[str, Any], relex: Command, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path / "chosen.yml", back)
    file = write(evaluation_beside(path), back, **YES)
    assert file == tmp_path / "chosen.evaluation.json"
    done = relex("run", path, tmp_path / "out", "--strict", "--quiet")
    assert done.code == 0, done.err
    assert f"found an evaluation beside the recipe: {file}" in done.err
    made = relex_merge.extrapolate(path, tmp_path / "api", quiet=True)
    assert made.report["verdict"]["evidence"] == "function"
    plain = relex_merge.extrapolate(back, tmp_path / "mapping", quiet=True)
    assert "evidence" not in plain.report["verdict"]


def test_one_of_another_series_is_an_error_where_named_and_ignored_where_found(
    forth: dict[str, Any], relex: Command, tmp_path: Path
) -> None:
    path, out = write_recipe(tmp_path / "r.yml", forth), tmp_path / "out"
    file = evaluation_beside(path)
    write_evaluation(file, make_evaluation(series="another", **NO))
    done = relex("run", path, out, "--evaluation", file, "--quiet")
    assert done.code == 1
    assert f"{file} is the evaluation of another series" in done.err
    assert {p.name for p in tmp_path.iterdir()} == {"r.yml", "r.evaluation.json"}
    done = relex("run", path, out, "--strict", "--quiet")
    assert done.code == 0, done.err
    assert f"ignoring the evaluation beside the recipe: {file} is the evaluation of" in done.err
    assert "evaluation" not in report(out)


@pytest.mark.parametrize("content", ["{", "[]", '{"series": 1}', "\udcff", '{"a": NaN}'])
def test_a_damaged_one_is_an_error_where_named_and_ignored_where_found(
    content: str, forth: dict[str, Any], relex: Command, tmp_path: Path
) -> None:
    path, out = write_recipe(tmp_path / "r.yml", forth), tmp_path / "out"
    file = evaluation_beside(path)
    file.write_bytes(content.encode(errors="surrogateescape"))
    done = relex("run", path, out, "--evaluation", file, "--quiet")
    assert done.code == 1
    assert str(file) in done.err
    assert not out.exists()
    done = relex("run", path, out, "--strict", "--quiet")
    assert done.code == 0, done.err
    assert f"ignoring the evaluation beside the recipe: {file} is no" in done.err


def test_a_named_file_that_is_missing(
    forth: dict[str, Any], relex: Command, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path / "r.yml", forth)
    done = relex("run", path, tmp_path / "out", "--evaluation", tmp_path / "none.json")
    assert done.code == 1
    assert "none.json: No such file or directory" in done.err


def test_every_target_and_scale_has_its_own_verdict(
    forth: dict[str, Any], relex: Command, tmp_path: Path
) -> None:
    far = Candidate(40)
    found = make_evaluation(
        series=fingerprint(forth), last_step=LAST, candidates=[LINE, HALF, far], **YES
    )
    found["function"]["candidates"][2]["kl"] = 3.0
    file = tmp_path / "measured.json"
    write_evaluation(file, found)
    path, out = write_recipe(tmp_path / "r.yml", forth), tmp_path / "out"
    targets = ("--target-step", 20, "--target-step", 30, "--target-step", 40)
    assert relex("run", path, out, *targets, "--quiet", "--yes", "--evaluation", file).code == 0
    near, between, there = (report(out / f"step-{step}")["verdict"] for step in (20, 30, 40))
    assert (near["verdict"], near["evidence"]) == ("extrapolate", "function")
    assert (there["verdict"], there["evidence"]) == ("do not extrapolate", "function")
    assert between["evidence"] == "geometry"
    assert "The evaluation has nothing about step 30," in between["reasons"][-1]
    assert "it measured step 20, step 20 × 0.5 (anchor last), step 40." in between["reasons"][-1]
    half = {**forth, "parameters": {**forth["parameters"], "anchor": "last", "scale": 0.5}}
    path = write_recipe(tmp_path / "half.yml", half)
    done = relex("run", path, tmp_path / "half", "--quiet", "--evaluation", file)
    assert done.code == 0
    assert "verdict for step 20 at scale 0.5: extrapolate (evidence: function)" in done.err


def test_one_of_another_recipe_over_the_same_series_says_nothing(
    forth: dict[str, Any], relex: Command, tmp_path: Path
) -> None:
    found = make_evaluation(series=fingerprint(forth), last_step=LAST, **NO)
    found["settings"]["method"] = "another"
    file = tmp_path / "measured.json"
    write_evaluation(file, found)
    path, out = write_recipe(tmp_path / "r.yml", forth), tmp_path / "out"
    assert relex("run", path, out, "--strict", "--quiet", "--evaluation", file).code == 0
    verdict = report(out)["verdict"]
    assert verdict["evidence"] == "geometry"
    assert "of this series with another recipe" in verdict["reasons"][-1]


def test_other_merge_methods_have_no_evaluation(
    walked: Series, relex: Command, tmp_path: Path
) -> None:
    recipe = {
        "merge_method": "linear",
        "models": [
            {"model": str(folder), "parameters": {"weight": 0.5}}
            for folder in walked.checkpoints[:2]
        ],
        "dtype": "float32",
    }
    path, file = write_recipe(tmp_path / "r.yml", recipe), tmp_path / "measured.json"
    write_evaluation(file, make_evaluation())
    done = relex("run", path, tmp_path / "out", "--evaluation", file)
    assert done.code == 1
    assert "--evaluation: for merge_method: relex" in done.err


def test_a_finished_output_keeps_its_evaluation_for_inspect(
    forth: dict[str, Any], relex: Command, tmp_path: Path
) -> None:
    path, out = write_recipe(tmp_path / "r.yml", forth), tmp_path / "out"
    file = write(tmp_path / "measured.json", forth, **NO)
    assert relex("run", path, out, "--quiet", "--yes", "--evaluation", file).code == 0
    assert relex_merge.inspect(out)["verdict"] == report(out)["verdict"]
    assert relex_merge.inspect(out, target_step=30)["verdict"]["evidence"] == "geometry"


def test_mergekits_own_path_has_no_evaluation(
    forth: dict[str, Any], relex: Command, tmp_path: Path
) -> None:
    path, file = write_recipe(tmp_path / "r.yml", sliced(forth)), tmp_path / "measured.json"
    write_evaluation(file, make_evaluation())
    done = relex("run", path, tmp_path / "out", "--evaluation", file)
    assert done.code == 1
    assert "--evaluation is for plain series" in done.err
    assert not (tmp_path / "out").exists()


class _Keyboard(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("figures", "code"), [(YES, 0), (NO, 3)])
def test_the_terminal_is_asked_where_the_strongest_evidence_says_no(
    figures: dict[str, Any],
    code: int,
    forth: dict[str, Any],
    relex: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = write(tmp_path / "measured.json", forth, **figures)
    path = write_recipe(tmp_path / "r.yml", forth)
    monkeypatch.setattr("sys.stdin", _Keyboard("n\n"))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    done = relex("run", path, tmp_path / "out", "--quiet", "--evaluation", file)
    assert done.code == code, done.err
    asked = "Its evaluation on text speaks against it. Write it?"
    assert (asked in done.out + done.err) == (code == 3)
    assert (tmp_path / "out").exists() == (code == 0)
