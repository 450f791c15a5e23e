"""Every way through a run, each on one small series, and what it writes when nobody disturbs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import relex_merge
from tests.fake_hub import Hub
from tests.support.adapters import make_adapters
from tests.support.models import Series, make_series
from tests.support.outputs import contents
from tests.support.refusals import sliced

STEPS = (1, 2, 3)
SHARD = 4_000  # bytes: some eight shards
TARGET = 20


def write(recipe: dict[str, Any], out: Path, *, shard: int = SHARD, **how: Any) -> None:
    """Run a recipe; ``how`` are arguments of :func:`relex_merge.extrapolate`."""
    from mergekit.options import MergeOptions

    options = MergeOptions(out_shard_size=shard, num_threads=2, quiet=True)
    relex_merge.extrapolate(recipe, out, options=options, quiet=True, figure=False, **how)


@dataclass
class Mode:
    """One way through a run.

    Attributes:
        name: says from what, to what, or how.
        recipe: what is run.
        how: arguments of :func:`write`.
        folder: where it writes once to know what it writes.
    """

    name: str
    recipe: dict[str, Any]
    how: dict[str, Any]
    folder: Path
    _whole: dict[str, bytes] = field(default_factory=dict)

    @property
    def whole(self) -> dict[str, bytes]:
        """What an undisturbed run leaves at an OUT that is called ``out``."""
        if not self._whole:
            out = self.folder / "out"
            write(self.recipe, out, **self.how)
            self._whole = contents(out)
        return self._whole


def local_modes(folder: Path) -> list[Mode]:
    """Return the modes on checkpoints of this disk.

    Args:
        folder: an empty folder for the series and what is written from it.
    """
    models = make_series(folder / "models", steps=STEPS).recipe(TARGET)
    adapters = make_adapters(folder / "adapters", steps=STEPS).recipe(TARGET)
    reused = folder / "first/out"
    write(models, reused)
    made: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "models to model": (models, {}),
        "models to adapter": (models, {"form": "adapter"}),
        "adapters to adapter": (adapters, {}),
        "adapters to model": (adapters, {"form": "model"}),
        "several targets": (models, {"target_step": [TARGET, 50]}),
        "reuse": (models, {"reuse": reused}),
        "mergekit": (sliced(models), {}),
    }
    return [_mode(folder, name, recipe, how) for name, (recipe, how) in made.items()]


def hub_modes(folder: Path, hub: Hub) -> list[Mode]:
    """Return the modes on checkpoints of the Hub, which are put there.

    Args:
        folder: an empty folder.
        hub: the Hub.
    """
    series = make_series(folder / "series", steps=STEPS, shards=2)
    publish(hub, series)
    recipe = {
        **series.recipe(TARGET),
        "base_model": "org/base",
        "models": [{"model": f"org/run@step_{step}"} for step in STEPS],
    }
    return [
        _mode(folder, "streamed", recipe, {"stream": True}),
        _mode(folder, "cache", recipe, {"stream": False}),
    ]


def publish(hub: Hub, series: Series) -> None:
    """Put a series on the Hub: ``org/base``, and a branch of ``org/run`` for each step."""
    hub.commit_folder("org/base", series.base)
    for step, checkpoint in zip(series.steps, series.checkpoints, strict=True):
        hub.commit_folder("org/run", checkpoint, branch=f"step_{step}")


def _mode(folder: Path, name: str, recipe: dict[str, Any], how: dict[str, Any]) -> Mode:
    return Mode(name, recipe, how, folder / name.replace(" ", "-"))
