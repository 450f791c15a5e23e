"""A report is read from its file by one function, which knows it from other files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relex_merge.errors import RelexError
from relex_merge.report.contents import Report, read_report, to_json
from tests.support.report_cases import make, report_of

REPORT: Report = report_of(make(np.arange(1.0, 13), names=("w", "v")).statistics(), 40.0)


def written(folder: Path, content: object) -> Path:
    path = folder / "relex_report.json"
    path.write_text(json.dumps(content))
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "relex_report.json"
    path.write_text(to_json(REPORT))
    assert read_report(path) == REPORT


def test_keys_of_other_versions_are_neither_asked_for_nor_lost(tmp_path: Path) -> None:
    promised = ("method", "base", "checkpoints", "versions")
    figures = ("target_step", "summary", "verdict", "tensors")
    report = {key: REPORT[key] for key in (*promised, *figures)} | {"to come": [1]}  # type: ignore[literal-required]
    assert read_report(written(tmp_path, report)) == report


CHANGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "a list": (lambda report: [report], r"is not a report of relex-merge \(Input should be"),
    "another file": (lambda report: {"model_type": "qwen2"}, r"\(method: Field required"),
    "a step in words": (lambda report: {**report, "target_step": "far"}, r"\(target_step: "),
    "a base without a name": (lambda report: {**report, "base": {}}, r"\(base\.reference: "),
    "odd figures": (lambda report: {**report, "tensors": {"w": {"r2": 1}}}, r"\(tensors\.w\."),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_file_is_refused_by_name_and_place(tmp_path: Path, change: str) -> None:
    make_other, place = CHANGES[change]
    with pytest.raises(RelexError, match=rf"relex_report\.json .*{place}.*run the recipe again"):
        read_report(written(tmp_path, make_other(json.loads(to_json(REPORT)))))


@pytest.mark.parametrize("text", ["", '{"method"', "[" * 100_000])
def test_a_file_that_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "relex_report.json").write_text(text)
    with pytest.raises(RelexError, match=r"has no readable relex_report\.json"):
        read_report(tmp_path / "relex_report.json")


def test_a_folder_without_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RelexError, match=r"has no readable relex_report\.json"):
        read_report(tmp_path / "relex_report.json")
