"""What ``evaluate --json`` holds, how it is read back, and how it is shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from relex_merge.errors import RelexError
from relex_merge.evaluation.assemble import About, TextResults, assemble
from relex_merge.evaluation.choice import Choice
from relex_merge.evaluation.responses import ResponseStatistics
from relex_merge.evaluation.scores import TaskScores
from relex_merge.report.candidates import BASE, LAST, Candidate, Model
from relex_merge.report.estimate import Estimate
from relex_merge.report.evaluation import Evaluation
from relex_merge.report.evaluation_file import read_evaluation, write_evaluation
from relex_merge.report.evaluation_tables import render_function, render_tasks, render_verdict
from relex_merge.report.final_verdict import Geometry, decide
from relex_merge.report.functional import Backtest, Function

LINE, HALF = Candidate(20), Candidate(20, 0.5, "last")
ABOUT = About("abc", 9.0, {"seed": 0}, {"torch": "2.13.0"})


def _scores(p: float, n: int) -> TaskScores:
    right = np.arange(n) < p * n
    return TaskScores({f"q{i}": float(r) for i, r in enumerate(right)}, "exact_match,none")


@pytest.fixture
def evaluation() -> Evaluation:
    figures = Function(Estimate(0.08, 0.01), 20 / 9, Estimate(0.4, 0.05))
    text = TextResults(
        "prompts.jsonl",
        640,
        64,
        [Backtest(20 / 9, figures.skill), Backtest(1.5, None)],
        {LINE: figures.kl, HALF: Estimate(0.05, None)},
        {BASE: Estimate(0.4, 0.02)},
        {LINE: ResponseStatistics(64, Estimate(10, 1), Estimate(0.1, 0.02), Estimate(0, 0))},
    )
    models: dict[Model, float] = {BASE: 0.2, LAST: 0.5, LINE: 0.9}
    return assemble(
        ABOUT,
        decide(Geometry("do not extrapolate", ["Weights are far off."]), figures),
        text,
        {
            "choosing": {m: {"sums": _scores(p, 30)} for m, p in models.items() if m != BASE},
            "reported": {m: {"sums": _scores(p, 100)} for m, p in models.items()},
        },
        Choice(LINE, ["It is better."]),
    )


def test_the_contract_of_evaluate_json(evaluation: Evaluation) -> None:
    found = json.loads(json.dumps(evaluation, allow_nan=False))
    assert {"verdict", "function", "tasks", "chosen"} <= found.keys()
    assert {"verdict", "reasons", "evidence"} <= found["verdict"].keys()
    assert (found["verdict"]["verdict"], found["verdict"]["evidence"]) == (
        "extrapolate",
        "function",
    )
    function = found["function"]
    assert function["tokens"] == 640
    assert function["backtests"] == [
        {"ratio": 20 / 9, "skill": 0.4, "stderr": 0.05},
        {"ratio": 1.5, "skill": None, "stderr": None},
    ]
    assert function["candidates"][0] == {
        "model": "step 20",
        "target_step": 20,
        "scale": 1,
        "anchor": "line",
        "kl": 0.08,
        "stderr": 0.01,
    }
    assert function["others"] == [{"model": "base", "kl": 0.4, "stderr": 0.02}]
    entries = found["tasks"]["sums"]
    wanted = {"model", "score", "stderr", "n", "difference", "difference_stderr", "split"}
    assert all(wanted <= entry.keys() for entry in entries)
    line = next(e for e in entries if e["model"] == "step 20" and e["split"] == "reported")
    assert (line["target_step"], line["scale"], line["anchor"]) == (20, 1, "line")
    assert (line["score"], line["n"], line["better"]) == (0.9, 100, "yes")
    assert line["difference"] == pytest.approx(0.4)
    last = next(e for e in entries if e["model"] == LAST)
    assert (last["difference"], last["difference_stderr"]) == (None, None)
    assert found["chosen"] == {
        "model": "step 20",
        "target_step": 20,
        "scale": 1,
        "anchor": "line",
        "reasons": ["It is better."],
    }


def test_the_last_observed_checkpoint_may_be_chosen() -> None:
    nothing = TextResults("start token", 1, 1, [], {})
    verdict = decide(Geometry("caution", []))
    found = assemble(ABOUT, verdict, nothing, {}, Choice(None, ["Nothing is better."]))
    chosen = found["chosen"]
    assert (chosen["model"], chosen["target_step"], chosen["scale"], chosen["anchor"]) == (
        LAST,
        9.0,
        0.0,
        "last",
    )
    assert found["tasks"] == {}


def test_an_evaluation_comes_back_for_its_own_series(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    file = tmp_path / "evaluation.json"
    write_evaluation(file, evaluation)
    assert list(tmp_path.iterdir()) == [file]
    assert read_evaluation(file, series="abc") == evaluation
    with pytest.raises(RelexError, match=r"evaluation\.json is the evaluation of another series"):
        read_evaluation(file, series="abd")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is no JSON"),
        ("[]", "is no evaluation"),
        ('{"verdict": 1}', "is no evaluation"),
        (
            '{"verdict": 1, "function": 1, "tasks": 1, "chosen": 1, "series": "abc", "format": 2}',
            "another version",
        ),
    ],
)
def test_files_that_are_no_evaluation(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "e.json"
    file.write_text(content)
    with pytest.raises(RelexError, match=says) as error:
        read_evaluation(file, series="abc")
    assert str(file) in str(error.value)


def test_a_missing_file_and_a_missing_folder(evaluation: Evaluation, tmp_path: Path) -> None:
    with pytest.raises(RelexError, match=r"cannot read .*absent"):
        read_evaluation(tmp_path / "absent.json", series="abc")
    with pytest.raises(RelexError, match=r"cannot write .*name another file"):
        write_evaluation(tmp_path / "absent" / "e.json", evaluation)


def test_the_table_is_lm_evals_with_differences(evaluation: Evaluation) -> None:
    lines = render_tasks(evaluation).splitlines()
    header = [part.strip() for part in lines[0].strip("|").split("|")]
    assert header[:2] == ["Tasks", "Filter"]
    assert len({line.count("|") for line in lines[:7]}) == 1
    row = next(line for line in lines if "step 20" in line and "reported" in line)
    cells = [part.strip() for part in row.strip("|").split("|")]
    assert cells == [
        "sums",
        "none",
        "exact_match",
        "step 20",
        "0.9000",
        "±",
        "0.0302",
        "+0.4000",
        "±",
        "0.0492",
        "100",
        "reported",
    ]
    assert lines[-1].startswith("- step 20: Better than the last observed checkpoint: yes (+0.400")


def test_figures_and_verdict_are_shown(evaluation: Evaluation) -> None:
    text = render_function(evaluation)
    assert "640 tokens, 64 prompts (prompts.jsonl)" in text
    assert "| 2.22×" in text
    assert "| step 20 × 0.5 (anchor last)" in text
    shown = render_verdict(evaluation)
    assert shown.startswith("**extrapolate** (evidence: function)")
    assert "- geometry: do not extrapolate" in shown
    assert "Chosen: **step 20**\n- It is better." in shown
