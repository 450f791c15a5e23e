"""A target that is found lies beyond the last observed step, or the answer is to stop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relex_merge.errors import RelexError
from relex_merge.report.table import chosen
from relex_merge.trajectory.backtests.automatic import choose
from relex_merge.trajectory.backtests.entries import ChoiceEntry
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics
from tests.support.models import Series
from tests.support.refusals import Refuse


def statistics(seed: int, steps: Array) -> SeriesStatistics:
    """Two tensors: a path along one direction, at a random power of the step, with noise."""
    draw = np.random.default_rng(seed)
    found = {}
    for name in ("one", "two"):
        M = np.outer(steps ** draw.uniform(0.2, 1.2), draw.normal(size=20))
        M += draw.uniform(0, 0.5) * draw.normal(size=M.shape)
        found[name] = TensorStatistics(M @ M.T, 1.0, 20, 20)
    return SeriesStatistics(steps, found)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), unit=st.sampled_from([1.0, 0.1, 7.0]))
def test_a_found_target_is_beyond_the_last_step_or_the_answer_is_stop(
    seed: int, unit: float
) -> None:
    steps = unit * np.arange(1, 10, dtype=np.float64)
    choice = choose(statistics(seed, steps), None)
    assert all(step > steps[-1] for step, *_ in choice.curve)
    if choice.stops:
        assert choice.target == steps[-1]
    else:
        assert choice.target > steps[-1]
        assert choice.target in [step for step, *_ in choice.curve]


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


@pytest.mark.parametrize("predictor", ["auto", "sqrt"])
def test_reconstruction_has_no_predictor(predictor: str) -> None:
    with pytest.raises(RelexError, match="mode: extrapolate"):
        Parameters(5, mode="reconstruct", predictor=predictor)


def test_options_of_relex_are_refused_for_other_methods(series: Series, refuse: Refuse) -> None:
    recipe = {
        "merge_method": "linear",
        "models": [{"model": str(c), "parameters": {"weight": 1}} for c in series.checkpoints[:2]],
        "dtype": "float32",
    }
    named = ("--revision", "mine")  # other methods have no target step to name it by
    assert "--lora-rank" in refuse(recipe, "--as", "adapter", "--lora-rank", "3", *named)
    assert "--reuse" in refuse(recipe, "--reuse", Path("nowhere"), *named)
