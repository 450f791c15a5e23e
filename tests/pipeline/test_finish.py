"""What cannot be told about a model never costs the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import relex_merge
from tests.support.models import Series, make_series, read_weights, worst_error
from tests.support.models import expected as reference
from tests.support.terminal import Command

BROKEN = {
    "make_report": {"relex_report.json", "README.md"},
    "save_plot": {"relex_report.png"},
    "_card": {"README.md"},
}


@pytest.mark.parametrize("what", BROKEN)
def test_the_model_is_there_without_what_failed(
    what: str, series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from relex_merge.pipeline import finish

    def fail(*_: Any, **__: Any) -> None:
        raise ArithmeticError("no figure can be computed")

    monkeypatch.setattr(finish, what, fail)
    said: list[str] = []
    out = tmp_path / "out"
    made = relex_merge.extrapolate(
        series.recipe(), out, figure=True, quiet=True, notify=said.append
    )
    assert worst_error(read_weights(out), reference(series)) < 1e-6
    missing = {file for file in BROKEN[what] if not (out / file).exists()}
    assert missing == BROKEN[what]
    assert (out / "relex_gram.safetensors").is_file()
    assert (out / "mergekit_config.yml").is_file()
    assert made.outputs == {20: out}
    (warning,) = said
    assert warning.startswith("warning: ")
    assert "ArithmeticError: no figure can be computed" in warning
    assert "relex_merge/pipeline/finish.py:" in warning
    if what == "make_report":
        assert not made.report
        monkeypatch.undo()  # mended, the rest is there for the price of one pass
        again = relex_merge.extrapolate(
            series.recipe(), tmp_path / "again", reuse=out, figure=False, quiet=True
        )
        assert again.report["target_step"] == 20
    else:
        assert made.report == json.loads((out / "relex_report.json").read_text())


def test_strict_does_not_pass_a_model_without_a_verdict(
    relex: Command, series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from relex_merge.pipeline import finish
    from tests.support.models import write_recipe

    monkeypatch.setattr(finish, "make_report", lambda *_, **__: 1 / 0)
    recipe = write_recipe(tmp_path / "r.yml", series.recipe())
    done = relex("run", "--yes", recipe, tmp_path / "out", "--strict", "--quiet")
    assert done.code == 3, done.err
    assert "no verdict" in done.err
    assert (tmp_path / "out/model.safetensors").is_file()


def test_a_base_whose_card_cannot_be_read(tmp_path: Path) -> None:
    """The only thing that the base's README.md is read for is its license."""
    series = make_series(tmp_path / "run", steps=(1, 2, 3))
    (series.base / "README.md").write_bytes(b"---\nlicense: [\xff\n---\n")
    relex_merge.extrapolate(series.recipe(), tmp_path / "out", figure=False, quiet=True)
    assert (tmp_path / "out/model.safetensors").is_file()
