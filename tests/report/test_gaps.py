"""A figure that cannot be computed is a gap in the report, with its reason, and costs no other."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from relex_merge.report import render_text
from relex_merge.report.contents import Report
from relex_merge.report.html import render_html
from relex_merge.report.model_card import model_card
from relex_merge.trajectory.backtests.gaps import Gaps
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.statistics import SeriesStatistics
from tests.support.report_cases import QWEN, make, report_of

STEPS = np.arange(1.0, 13)
NAMES = QWEN[:4]
BROKEN = NAMES[2]
NOT_ENOUGH = "not enough checkpoints to tell"
TWICE = np.asarray([1.0, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])  # no parabola through the first three
NO_PARABOLA = (
    "a fit of degree 2 needs at least 3 checkpoints of different steps, the window holds 2"
)


def spoilt(statistics: SeriesStatistics, value: float, *names: str) -> SeriesStatistics:
    """The same with ``value`` planted in the G of the named tensors."""
    tensors = dict(statistics.tensors)
    for name in names:
        gram = tensors[name].gram.copy()
        gram[2, 2] = value
        tensors[name] = replace(tensors[name], gram=gram)
    return replace(statistics, tensors=tensors)


def told(report: Report) -> list[str]:
    """The report in the terminal and as a card, on one line each."""
    json.dumps(report, allow_nan=False)
    card = model_card(report, "merge_method: relex\n", name="out").replace("\\", "")
    return [re.sub(r"\s+", " ", text) for text in (render_text(report), card)]


def page(report: Report, statistics: SeriesStatistics) -> str:
    """The report as a page with its figure, which takes a second to draw."""
    pytest.importorskip("matplotlib")
    return re.sub(r"\s+", " ", render_html(report, statistics))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_a_tensor_whose_gram_matrix_is_broken_disturbs_no_other(value: float) -> None:
    sound = make(STEPS, names=NAMES).statistics()
    statistics = spoilt(sound, value, BROKEN)
    report = report_of(statistics, 48.0)
    (gap,) = report["gaps"]
    assert gap["part"] == f"tensors.{BROKEN}"
    assert "holds NaN, infinity or numbers beyond 1e+140" in gap["reason"]
    assert report["verdict"]["verdict"] == NOT_ENOUGH
    assert BROKEN in report["verdict"]["reasons"][0]
    texts = told(report)
    if np.isnan(value):
        texts.append(page(report, statistics))
    for text in texts:
        assert f"{BROKEN} could not be computed: its Gram matrix holds NaN" in text
    entry = report["tensors"][BROKEN]
    assert [entry[key] for key in ("explained_variance", "r2", "relative_update")] == [None] * 3
    assert entry["numel"] == 400
    others = {name: t for name, t in sound.tensors.items() if name != BROKEN}
    without = report_of(replace(sound, tensors=others), 48.0)
    for name in others:
        assert report["tensors"][name]["spectrum"] == without["tensors"][name]["spectrum"]
    for key, figures in without["summary"].items():
        assert report["summary"][key] == pytest.approx(figures)


def test_where_every_tensor_is_broken_there_are_only_gaps() -> None:
    statistics = spoilt(make(STEPS, names=NAMES).statistics(), np.nan, *NAMES)
    report = report_of(statistics, 48.0)
    assert f"as do those of {len(NAMES) - 1} other tensors" in report["gaps"][0]["reason"]
    assert report["verdict"]["verdict"] == NOT_ENOUGH
    assert set(report["summary"]["explained_variance"].values()) == {None}
    told(report)
    page(report, statistics)


def test_held_out_checkpoints_that_are_broken_are_a_gap_too() -> None:
    run = make(np.append(STEPS, [30.0, 40.0]), names=NAMES)
    everything = run.statistics()
    gram = everything.tensors[BROKEN].gram.copy()
    gram[-1] = np.nan
    broken = {BROKEN: replace(everything.tensors[BROKEN], gram=gram)}
    holdout = replace(everything, tensors={**everything.tensors, **broken})
    report = report_of(run.statistics(12), 48.0, holdout=holdout)
    assert [gap["part"] for gap in report["gaps"]] == [f"tensors.{BROKEN}"]
    assert report["verdict"]["verdict"] == NOT_ENOUGH


def test_a_backtest_that_fails_leaves_the_others_and_the_verdict() -> None:
    statistics = make(TWICE, names=NAMES).statistics()
    report = report_of(statistics, 44.0)
    assert {"part": "backtests.quadratic", "reason": NO_PARABOLA} in report["gaps"]
    assert not {"model", "backtests.method", "tensors"} & {gap["part"] for gap in report["gaps"]}
    grid = report["backtests"]["grid"]
    assert all(trial["skill"]["method"] is not None for trial in grid)
    assert None in [trial["skill"]["quadratic"] for trial in grid]
    assert report["verdict"]["verdict"] != NOT_ENOUGH
    for text in told(report):
        assert "backtests.quadratic could not be computed: a fit of degree 2" in text


def test_where_the_recipes_own_backtests_fail_there_is_no_verdict() -> None:
    statistics = make(TWICE, names=NAMES).statistics()
    report = report_of(statistics, 44.0, Parameters(44.0, degree=2))
    assert report["verdict"] == {
        "verdict": NOT_ENOUGH,
        "reasons": [f"backtests.method could not be computed: {NO_PARABOLA}."],
        "supported_target": None,
    }
    assert report["model"]["explained_variance"] is not None
    assert report["random_walk"]["explained_variance"] is None  # its own fit fails as well


def test_figures_that_fail_for_all_tensors_are_gaps_and_the_rest_is_told() -> None:
    four = make(STEPS[:4], names=NAMES).statistics()
    report = report_of(four, 12.0, Parameters(12.0, degree=5))
    parts = ["tensors", "model", "model.coefficients", "random_walk", "layers", "kinds"]
    assert [gap["part"] for gap in report["gaps"]] == parts
    assert {gap["reason"] for gap in report["gaps"]} == {
        "a fit of degree 5 needs at least 6 checkpoints of different steps, the window holds 4"
    }
    assert report["verdict"]["verdict"] == NOT_ENOUGH
    assert report["verdict"]["reasons"][0].startswith("model could not be computed: a fit of")
    assert report["backtests"]["grid"][-1]["skill"]["linear"] is not None
    assert report["model"]["moved"] == 1
    told(report)
    page(report, four)


def test_a_sound_report_has_no_gap() -> None:
    report = report_of(make(STEPS, names=NAMES).statistics(), 48.0)
    assert report["gaps"] == []
    for text in told(report):
        assert "could not be computed" not in text
        assert "gaps" not in text.lower()


def singular() -> Array:
    return np.asarray(np.linalg.inv(np.zeros((2, 2))), np.float64)


def bug() -> int:
    figures: dict[str, int] = {}
    return figures["no such figure"]


def test_what_fails_is_noted_once_with_its_reason_and_bugs_are_not_hidden() -> None:
    gaps = Gaps()
    nothing = np.zeros(2)
    assert gaps.attempt("fine", lambda: nothing + 1, nothing).tolist() == [1, 1]
    assert gaps.attempt("matrix", singular, nothing) is nothing
    assert gaps.attempt("matrix", singular, nothing) is nothing
    assert gaps.attempt("number", lambda: 10.0**400, 0.5) == 0.5
    assert [gap["part"] for gap in gaps.found] == ["matrix", "number"]
    assert gaps.found[0]["reason"] == "Singular matrix"
    with pytest.raises(KeyError):
        gaps.attempt("bug", bug, 0)


def test_a_report_of_an_older_version_is_shown_as_ever() -> None:
    statistics = make(STEPS, names=NAMES).statistics()
    report = report_of(statistics, 48.0)
    now = told(report)
    del report["gaps"]
    assert told(report) == now
    assert "Gaps in the report" not in page(report, statistics)
