"""The report on the terminal: verdict first, whole in 80 columns, colour on a screen only."""

from __future__ import annotations

import os
import pty
import re
import sys
from typing import Any

import numpy as np
import pytest

from relex_merge.report import print_report, render_text
from relex_merge.report.columns import COLUMNS
from relex_merge.report.contents import Report
from relex_merge.report.table import TONES, chosen
from relex_merge.trajectory.backtests.entries import ChoiceEntry
from relex_merge.trajectory.backtests.verdict import VERDICTS
from relex_merge.trajectory.parameters import Parameters
from tests.support.report_cases import make, report_of

STEPS = np.arange(1.0, 31)


@pytest.fixture(scope="module")
def report() -> Report:
    found: Report = report_of(make(STEPS).statistics(), 120.0)
    return found


def test_the_verdict_comes_first_then_reasons_tables_and_legend(report: Report) -> None:
    text = render_text(report)
    assert text.startswith(f"verdict: {report['verdict']['verdict']}\n  - ")
    said = re.sub(r"\s+", " ", text)
    order = [
        *report["verdict"]["reasons"],
        "30 checkpoints, steps 1 to 30; target step 120, 4× the last",
        "whole model",
        "a random walk 0.8",
        "q_proj",
        "layer 2",
        "Backtests: skill at the last checkpoint",
        *(column.meaning for column in COLUMNS),
    ]
    places = [said.index(part) for part in order]
    assert places == sorted(places)


@pytest.mark.parametrize("law", [1.0, 0.2])
def test_80_columns_are_enough_whatever_tensors_are_called(law: float) -> None:
    kinds = ("post_attention_layernorm", "a_kind_of_module_with_a_name_without_end")
    names = tuple(f"model.layers.{i}.{kind}.weight" for i in range(12) for kind in kinds)
    run = make(np.append(np.arange(1.0, 76), [400.0, 1000.0]), names=names, law=law, d=40)
    text = render_text(report_of(run.statistics(75), 1000.0, holdout=run.statistics()))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text.replace("\n …\n", "\n")  # nothing is cut off
    assert "True skill at held-out checkpoints, by step" in text
    assert re.search(r"^ +400 +1000$", text, re.MULTILINE)
    for kind in kinds:
        assert kind[:20] in text


def test_a_path_that_is_longer_than_a_line_stays_whole(report: Report) -> None:
    path = "/data/" + "x" * 90 + "/step_1"
    reasons = [f"The weights of {path} are those of the base."]
    verdict: Any = {**report["verdict"], "reasons": reasons}
    assert path in render_text({**report, "verdict": verdict})


@pytest.mark.parametrize("predictor", ["linear", "sqrt"])
def test_the_recipe_has_one_row(predictor: str) -> None:
    asked = Parameters(120.0, predictor=predictor)
    lines = render_text(report_of(make(STEPS).statistics(), 120.0, asked)).splitlines()
    (own,) = [line for line in lines if "recipe)" in line]
    assert own.startswith(f"rank-1 {predictor} (recipe) ")
    assert not [line for line in lines if line.startswith(f"rank-1 {predictor}  ")]
    assert not [line for line in lines if "this recipe" in line]


def test_a_recipe_that_is_no_baseline_has_a_row_of_its_own() -> None:
    asked = Parameters(120.0, anchor="last", scale=0.5)
    text = render_text(report_of(make(STEPS).statistics(), 120.0, asked))
    assert "this recipe  " in text
    assert "rank-1 linear  " in text


def test_colour_is_for_screens(
    report: Report, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    print_report(report)
    plain = capsys.readouterr().out
    assert "\x1b" not in plain
    assert [line.rstrip() for line in plain.splitlines()] == render_text(report).splitlines()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as screen, monkeypatch.context() as on_screen:
        on_screen.setattr(sys, "stdout", screen)
        verdict: Any = {"verdict": "do not extrapolate", "reasons": ["No."]}
        tests: Any = {**report["backtests"], "grid": []}
        groups: Any = {"kinds": {}, "layers": {}}
        print_report({**report, "verdict": verdict, "backtests": tests, **groups})
        screen.flush()
        shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert re.search(r"\x1b\[[\d;]*31[\d;]*mdo not extrapolate", shown)


def test_every_verdict_has_a_tone() -> None:
    assert set(TONES) == set(VERDICTS)


def test_every_kind_of_evidence_is_named(report: Report) -> None:
    verdict: Any = {
        "verdict": "caution",
        "evidence": "function",
        "reasons": ["It is near.", "Both agree."],
        "statements": [
            {"evidence": "geometry", "verdict": None, "says": ["No."], "cannot_see": "Use."},
            {"evidence": "function", "verdict": "caution", "says": ["It is near."]},
        ],
    }
    text = render_text({**report, "verdict": verdict})
    assert text.startswith(
        "verdict: caution (evidence: function)\n"
        "  - geometry: cannot tell. No.\n"
        "  - function: caution. It is near.\n"
        "  - Both agree.\n"
    )


def test_where_some_tensors_stay_the_choice_is_named_by_those_that_go_on() -> None:
    mixed: ChoiceEntry = {
        "predictor": "local",
        "scope": "tensor",
        "target_step": 80.0,
        "stops": False,
        "reasons": [],
        "groups": {
            n: {"predictor": p, "candidates": {}}
            for n, p in zip("abc", ("stay", "stay", "local"), strict=True)
        },
        "curve": [],
    }
    assert chosen(mixed) == "stay for 2, local for 1 tensors"


def test_the_file_explains_its_figures(report: Report) -> None:
    entry: dict[str, object] = {**report["model"]}
    assert set(report["legend"]) <= set(entry)
    assert all(meaning in report["legend"].values() for meaning in (c.meaning for c in COLUMNS))
