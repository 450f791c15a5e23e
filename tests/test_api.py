"""The public functions: what they take, and that they take nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relex_merge.api import examine, extrapolate, forecast, inspect
from tests.support.models import Series


@pytest.mark.parametrize("function", [extrapolate, forecast])
def test_a_misspelt_keyword_of_a_run_is_named(
    function: Callable[..., Any], series: Series, tmp_path: Path
) -> None:
    with pytest.raises(TypeError, match="target_steps"):
        function(series.recipe(), tmp_path / "out", target_steps=20)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("function", [inspect, examine])
def test_a_misspelt_keyword_of_an_inspection_is_named(
    function: Callable[..., Any], series: Series
) -> None:
    with pytest.raises(TypeError, match="hold_out"):
        function(series.recipe(), hold_out=["x"])
