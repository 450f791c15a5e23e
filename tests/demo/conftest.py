"""The demos that the tests of this room share."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from relex_merge.demo import tasks
from relex_merge.demo.settings import Settings, make_settings
from tests.support import first_digit
from tests.support.demo_runs import PRETRAINING, RLVR, STEPS, Finished, run_small
from tests.support.models import Series
from tests.support.once import made_once


@pytest.fixture(scope="package", autouse=True)
def small_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A third task, added as one file; and every run of this room is small."""
    folder = tmp_path_factory.mktemp("tasks")
    shutil.copy(first_digit.__file__, folder)

    def small(**choices: Any) -> Settings:
        rlvr = replace(RLVR, lr=choices["lr"] or RLVR.lr)
        return replace(make_settings(**choices), pretraining=PRETRAINING, rlvr=rlvr)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "__path__", [*tasks.__path__, str(folder)])
        patch.setattr("relex_merge.demo.run.make_settings", small)
        patch.setattr("relex_merge.demo.story.CURVE", (1, 2))
        patch.setattr("relex_merge.demo.story.OBSERVED_POINTS", 2)
        patch.setattr("relex_merge.demo.story.REAL_POINTS", 2)
        patch.setattr("relex_merge.api.find_spec", lambda _: None)  # no figures in model cards
        yield
    sys.modules.pop("relex_merge.demo.tasks.first_digit", None)


@pytest.fixture(scope="package")
def finished(small_demo: None, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A demo from nothing to its end. Not to be changed."""

    def make(out: Path) -> Finished:
        said: list[str] = []
        result = run_small(out, quick=False, echo=said.append)
        return Finished(out, "\n".join(said), result)

    return made_once(tmp_path_factory, "demo", make)


@pytest.fixture(scope="package")
def real_series(finished: Finished) -> Series:
    """Base and first ten checkpoints, a step apart, of that demo's RLVR. Not to be changed."""
    base = finished.out / "base"
    folders = tuple(finished.out / f"series/step_{step}" for step in range(1, STEPS + 1))
    return Series(
        base=base,
        checkpoints=folders,
        steps=tuple(float(step) for step in range(1, STEPS + 1)),
        base_state=load_file(base / "model.safetensors"),
        states=tuple(load_file(folder / "model.safetensors") for folder in folders),
    )
