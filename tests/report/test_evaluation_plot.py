"""The curves of an evaluation: every scale a line, every task a panel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relex_merge.errors import RelexError
from relex_merge.report.candidates import Candidate
from relex_merge.report.evaluation_plot import draw_evaluation, save_evaluation_plot
from tests.support.evaluations import HALF, LINE, make_evaluation, scores, sums
from tests.support.figures import clashes

SCALES = [(0.1, "last"), (0.3, "last"), (0.5, "last"), (1.0, "last"), (1.0, "line")]
FAR, NEAR = Candidate(40), Candidate(40, 0.5, "last")


def panels(figure: Any) -> list[Any]:
    return [axes for axes in figure.axes if axes.axison]


def test_a_line_for_each_scale_and_a_panel_for_each_task() -> None:
    tasks = {**sums(), "words $x$": sums()["sums"]}
    figure = draw_evaluation(make_evaluation(candidates=[LINE, FAR, HALF, NEAR], tasks=tasks))
    function, first, second = panels(figure)
    lines = {tuple(bars[0].get_xdata()) for bars in function.containers}
    assert lines == {(20.0, 40.0)}
    assert len(function.containers) == 2
    assert first.get_title() == "sums"
    assert second.get_title() == "words $x$"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "λ = 0.5, anchor last",
        "λ = 1",
        "trust region",
        "base",
        "last observed",
        "questions that choose",
    ]


def test_intervals_are_of_95_percent_and_hollow_where_they_choose() -> None:
    figure = draw_evaluation(make_evaluation(tasks=sums()))
    _, task = panels(figure)
    chosen, reported, last = task.containers
    assert chosen[0].get_markerfacecolor() == "none"
    assert reported[0].get_markerfacecolor() != "none"
    (segment,) = reported[2][0].get_segments()
    assert segment[:, 1].tolist() == pytest.approx([0.9 - 1.96 * 0.05, 0.9 + 1.96 * 0.05], abs=1e-4)
    assert last[0].get_xdata().tolist() == [9.0]


@pytest.mark.parametrize("several", [False, True])
def test_title_legend_and_labels_keep_apart(several: bool) -> None:
    candidates = [Candidate(t, s, a) for t in (20, 40) for s, a in SCALES] if several else [LINE]
    evaluation = make_evaluation(candidates=candidates, tasks=sums() if several else {})
    evaluation["verdict"]["verdict"] = "not enough checkpoints to tell"
    evaluation["chosen"]["model"] = "step 1000, λ = 0.3, anchor last"
    assert clashes(draw_evaluation(evaluation)) == []


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_it_is_written_also_without_tasks_and_backtests(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"curves.{suffix}"
    save_evaluation_plot(make_evaluation(skill=None, kl=0.0), path)
    assert path.stat().st_size > 1000


def test_many_tasks_fill_rows(tmp_path: Path) -> None:
    tasks = {f"t{i}": [scores(LINE, 0.5, (0, 1))] for i in range(4)}
    assert len(panels(draw_evaluation(make_evaluation(tasks=tasks)))) == 5


def test_a_format_that_there_is_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(RelexError, match="a plot can be"):
        save_evaluation_plot(make_evaluation(), tmp_path / "curves.doc")
