"""What an evaluation says about the model of a report, and what it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from relex_merge.errors import RelexError
from relex_merge.evaluation.paired import paired
from relex_merge.report.candidates import Candidate
from relex_merge.report.contents import Report
from relex_merge.report.difference import combined
from relex_merge.report.evaluated import find, measured, with_evaluation, written
from relex_merge.report.evaluation_file import (
    evaluation_beside,
    load_evaluation,
    write_evaluation,
)
from relex_merge.report.hub_results import benchmark_files, eval_results
from tests.support.evaluations import HALF, LINE, make_evaluation, scores, sums


def weights(**method: Any) -> Report:
    """What with_evaluation looks at."""
    report = {
        "method": {"mode": "extrapolate", "rank": 1, **method},
        "target_step": 20,
        "verdict": {"verdict": "caution", "reasons": ["Weights."], "supported_target": None},
    }
    return cast("Report", report)


def test_the_model_of_a_report() -> None:
    assert written(weights()) == LINE
    assert written(weights(scale=0.5, anchor="last")) == HALF
    assert written(weights(mode="reconstruct")) is None
    stopped = {**weights(), "choice": {"stops": True}}
    assert written(cast("Report", stopped)) is None


def test_each_candidate_has_its_own_figures() -> None:
    evaluation = make_evaluation(kl=0.3, tasks=sums())
    line, half = find(evaluation, LINE), find(evaluation, HALF)
    assert line.function is not None
    assert (line.function.kl.value, line.function.ratio) == (0.3, 20 / 9)
    assert line.labels is not None
    assert (line.labels.mean, line.labels.low, line.labels.high) == (0.4, 0.3, 0.5)
    assert half.labels is None  # it was asked only questions that choose
    assert find(evaluation, Candidate(20, 1.0, "last")).function is None


def test_a_backtest_speaks_about_ratios_up_to_its_own() -> None:
    far = Candidate(40)
    found = find(make_evaluation(candidates=[LINE, far]), far)
    assert found.function is not None
    assert found.function.skill is None


def test_several_tasks_are_put_together_as_when_they_were_measured() -> None:
    rng = np.random.default_rng(0)
    tasks = [rng.choice([-1.0, 0.0, 1.0], size=n) for n in (40, 90)]
    alone = [paired([task]) for task in tasks]
    entries = {
        f"t{i}": [
            {
                **scores(LINE, d.mean, (d.low, d.high), last=0.0),
                "difference_stderr": d.stderr,
                "n": d.n,
            }
        ]
        for i, d in enumerate(alone)
    }
    found = find(make_evaluation(tasks=entries), LINE).labels
    together = paired(tasks)
    assert found == combined(alone) == together
    assert together.mean == pytest.approx(np.mean([task.mean() for task in tasks]))


def test_weights_alone_are_left_as_they_are_beside_the_evidence() -> None:
    report = with_evaluation(weights(), make_evaluation(), "mark")
    verdict = report["verdict"]
    assert verdict["supported_target"] is None
    assert [s["evidence"] for s in verdict["statements"]] == ["function", "geometry"]
    assert verdict["statements"][1]["says"] == ["Weights."]
    assert measured(report) == LINE
    assert measured(with_evaluation(weights(mode="reconstruct"), make_evaluation(), "")) is None


def test_without_tasks_or_evaluation_the_hub_is_told_nothing() -> None:
    assert (eval_results(weights()), benchmark_files(weights())) == ([], {})
    report = with_evaluation(weights(), make_evaluation(), "mark")
    assert (eval_results(report), benchmark_files(report)) == ([], {})


def test_the_name_beside_a_recipe() -> None:
    assert evaluation_beside(Path("a/r.v2.yml")) == Path("a/r.v2.evaluation.json")


@pytest.mark.parametrize(
    ("where", "value", "says"),
    [
        (("last_step",), 0.0, "last_step is not above 0"),
        (("verdict", "verdict"), "perhaps", r"verdict\.verdict"),
        (("function", "candidates", 0, "kl"), "small", r"function\.candidates\.0\.kl"),
        (("tasks", "sums", 2, "interval"), [0.1], "an interval has two ends"),
    ],
)
def test_a_damaged_entry_is_named(
    where: tuple[str | int, ...], value: object, says: str, tmp_path: Path
) -> None:
    evaluation: Any = make_evaluation(tasks=sums())
    place = evaluation
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    write_evaluation(tmp_path / "e.json", evaluation)
    with pytest.raises(RelexError, match=says):
        load_evaluation(tmp_path / "e.json")
