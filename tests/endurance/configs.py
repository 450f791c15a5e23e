"""JSON files of checkpoints: each series is found and run, or refused in one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import relex_merge
from relex_merge.checkpoints.find_local import find_local
from tests.endurance.campaign import Bench, Campaign, Trial
from tests.support.adapters import make_adapters
from tests.support.json_mutations import mutation
from tests.support.models import make_series
from tests.support.refusal import refusal

STEPS = (1, 2, 3)
# Which file of which folder is spoilt.
PLACES = (
    ("models", "base", "config.json"),
    ("models", "step_3", "config.json"),
    ("models", "base", "tokenizer_config.json"),
    ("models", "base", "generation_config.json"),
    ("adapters", "checkpoint-2", "adapter_config.json"),
    ("adapters", "base", "config.json"),
)


@contextmanager
def _open(bench: Bench) -> Iterator[Trial]:
    recipes = {
        "models": make_series(bench.folder / "models", steps=STEPS).recipe(),
        "adapters": make_adapters(bench.folder / "adapters", steps=STEPS).recipe(),
    }
    generation = bench.folder / "models/base/generation_config.json"
    generation.write_text('{"do_sample": true, "eos_token_id": [1, 2], "temperature": 0.7}')

    def trial(number: int) -> None:
        series, folder, name = PLACES[number % len(PLACES)]
        path = bench.folder / series / folder / name
        good = path.read_bytes()
        path.write_bytes(mutation(json.loads(good), bench.seed, number))
        try:
            refusal(lambda: find_local(bench.folder / series))
            _run(recipes[series], bench.work(number))
        finally:
            path.write_bytes(good)

    yield trial


def _run(recipe: dict[str, Any], work: Path) -> None:
    """Write a model whole, or nothing."""
    out = work / "out"
    said = refusal(lambda: relex_merge.extrapolate(recipe, out, quiet=True, figure=False))
    if said is None:
        assert (out / "relex_report.json").is_file()
    assert [path.name for path in work.iterdir()] == ([] if said else ["out"]), said
    shutil.rmtree(work)


CAMPAIGN = Campaign("configs", "runs with mutated JSON files beside the weights", 600, _open)
