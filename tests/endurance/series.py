"""Series of every short length, of 6 and 7 checkpoints above all: the model and every figure."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

import relex_merge
from tests.endurance.campaign import Bench, Campaign, Trial
from tests.support.models import expected, make_series, read_weights, worst_error

PREDICTORS = ("linear", "linear", "sqrt", "power", "saturating", "local", "damped", "auto")
FAR = 60
# Of noise after the first direction: which of two equal ones is the second, any digit decides.
SECOND = 1e-2
ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 1e-2}  # of a tensor's largest number


def _length(chance: random.Random, number: int) -> int:
    """Two of three series have 6 or 7 checkpoints, whose D @ D.T is not symmetric in float32."""
    return (6, 7, chance.choice((2, 3, 4, 5, 8, 9, 10, 12)))[number % 3]


def _parameters(chance: random.Random, length: int) -> dict[str, Any]:
    predictor = chance.choice(PREDICTORS) if length >= 5 else "linear"
    if predictor != "linear":
        return {"predictor": predictor}
    return {"rank": chance.choice((1, 1, 2)), "degree": chance.choice((1, 1, 2))}


@contextmanager
def _open(bench: Bench) -> Iterator[Trial]:
    def trial(number: int) -> None:
        chance = random.Random(f"{bench.seed}/{number}")
        length = _length(chance, number)
        dtype = chance.choice((torch.float32, torch.bfloat16))
        size = 64 if bench.quick else chance.choice((256, 512))
        parameters = _parameters(chance, length) if length > 2 else {}
        work = bench.work(number)
        steps = sorted(chance.sample(range(1, 40), length))
        series = make_series(
            work, steps=steps, dtype=dtype, hidden_size=size, seed=number, scale=1e-4
        )
        report = relex_merge.extrapolate(
            series.recipe(FAR, **parameters), work / "out", quiet=True, figure=False, anyway=True
        ).report
        assert report["verdict"]["verdict"]
        assert not report.get("gaps"), report["gaps"]
        if "predictor" not in parameters:
            error = worst_error(read_weights(work / "out"), expected(series, FAR, **parameters))
            limit = SECOND if parameters.get("rank") == 2 else ROUNDING[dtype]
            assert error < limit, f"{length} checkpoints, {parameters}: off by {error}"
        shutil.rmtree(work)

    yield trial


CAMPAIGN = Campaign("series", "series of 6 and 7 checkpoints, and of other lengths", 96, _open)
