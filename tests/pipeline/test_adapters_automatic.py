"""Series of adapters with ``predictor: auto``: chosen from their Gram matrices as any other's."""

from __future__ import annotations

from pathlib import Path

import pytest

import relex_merge
from relex_merge.errors import RelexError
from tests.support.adapters import Adapters, make_adapters

STEPS = (1, 2, 3, 5, 6, 8, 9, 10)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Adapters:
    return make_adapters(tmp_path_factory.mktemp("adapters"), steps=STEPS)


@pytest.mark.parametrize("form", ["adapter", "model"])
def test_auto_writes_what_the_predictor_it_names_would(
    series: Adapters, tmp_path: Path, form: str
) -> None:
    found = relex_merge.extrapolate(
        series.recipe(12, predictor="auto"),
        tmp_path / "auto",
        form=form,
        anyway=True,
        quiet=True,
        figure=False,
    )
    chosen = found.report["choice"]["predictor"]
    assert chosen == found.report["method"].get("predictor", "linear")
    relex_merge.extrapolate(
        series.recipe(12, predictor=chosen),
        tmp_path / "named",
        form=form,
        quiet=True,
        figure=False,
    )
    file = "adapter_model.safetensors" if form == "adapter" else "model.safetensors"
    auto, named = (tmp_path / name / file for name in ("auto", "named"))
    assert auto.read_bytes() == named.read_bytes()


def test_a_target_that_no_backtest_supports_is_refused(series: Adapters, tmp_path: Path) -> None:
    with pytest.raises(RelexError, match="--yes"):
        relex_merge.extrapolate(
            series.recipe(10_000, predictor="auto"), tmp_path / "out", quiet=True, figure=False
        )
    assert not (tmp_path / "out").exists()
