"""The series of a run and its Gram matrices, kept in step with each other and on the disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import yaml
from mergekit.options import MergeOptions

from relex_merge.checkpoints.files import GRAM, SERIES_RECIPE
from relex_merge.checkpoints.notes import rounding
from relex_merge.engine.factors import adapters_of
from relex_merge.engine.growing import grow
from relex_merge.engine.plan import NeedsMergekit
from relex_merge.engine.resources import available
from relex_merge.engine.sample_memory import SampleMemory, Wanted
from relex_merge.errors import RelexError
from relex_merge.hub.download import progress_bars
from relex_merge.pipeline import prepare
from relex_merge.pipeline.grams import form_grams
from relex_merge.pipeline.inspection import of_series
from relex_merge.recipe.load import load_recipe
from relex_merge.recipe.names import METHOD
from relex_merge.recipe.variant import Variant
from relex_merge.report.contents import Report
from relex_merge.training.series_folder import SeriesFolder
from relex_merge.training.stopping import Figures
from relex_merge.trajectory.statistics import SeriesStatistics
from relex_merge.weights.memory import Memory

HISTORY = "relex_history.json"
SAMPLE = 10**6  # numbers of a checkpoint that are held
FEWEST = 2  # checkpoints that make a trajectory
ASSUMED = (
    "# TrajectoryCallback was given no target_step: the one below is where the run itself ends.\n"
    "# To go elsewhere change it, or give --target-step N.\n"
)
NO_TARGET = (
    "# TrajectoryCallback was given no target_step, and the run has reached its own end: say how\n"
    "# far to go with --target-step N, or with parameters: {target_step: N} here.\n"
)


class Trajectory:
    """The checkpoints so far, and what is known of them.

    Args:
        folder: holds the checkpoints.
        base: reference of the model that the run starts from.
        target: step to extrapolate to.
        memory: bytes for earlier checkpoints.
        assumed: whether the target is only where the run ends, since none was asked for.
        exact: whether Gram matrices are formed from all numbers and not from a sample.

    Attributes:
        remarks: what is to be said of the checkpoints, besides figures.
    """

    def __init__(
        self,
        folder: SeriesFolder,
        base: str,
        target: float,
        memory: int,
        *,
        assumed: bool = False,
        exact: bool = False,
    ) -> None:
        self.folder = folder
        self.history: list[Figures] = []
        self._base = base
        self._target = target
        self._assumed = assumed
        self._memory = Memory(memory)
        self._sample = None if exact else SampleMemory(SAMPLE)
        self._prepared: prepare.Prepared | None = None
        self._known: SeriesStatistics | None = None
        self._options = MergeOptions()
        self.remarks: list[str] = []

    @property
    def recipe(self) -> Path:
        """The recipe that finishes the job."""
        return self.folder.root / SERIES_RECIPE

    @property
    def gram(self) -> Path:
        """The file of Gram matrices, for ``--reuse``."""
        return self.folder.root / GRAM

    def resume(self, step: int) -> None:
        """Take up what an earlier run left up to ``step``, and drop what lies beyond."""
        self._known = self._load()
        self.folder.drop_after(step)
        if self._known is not None:
            self._known = self._known.select(self._known.steps <= step)
        self.history = [f for f in self._read_history() if f.step <= step]

    def wanted(self) -> list[Wanted]:
        """Return which numbers of the checkpoint that came last the trainer may bring.

        None of them has to be brought: what is missing is read from the checkpoint's files.
        """
        self._prepared = None
        if self._sample is None or len(self.folder.steps()) < FEWEST:
            return []
        prepared = self._prepare()
        if adapters_of(prepared.plan):
            return []
        self._prepared = prepared
        return self._sample.wanted(prepared.plan, prepared.plan.T)

    def update(self, step: int, live: Mapping[str, torch.Tensor] | None = None) -> Figures | None:
        """Take in a checkpoint that lies in the folder; write the Gram matrices and the recipe.

        Args:
            step: of the checkpoint.
            live: name → its numbers, as asked for by :meth:`wanted` just before, from the
                parameters themselves.

        Returns:
            The figures of the trajectory; None while there is only one checkpoint.

        Raises:
            RelexError: the checkpoint does not fit the others, or cannot be read.
        """
        if self._known is not None and step in self._known.steps:  # it was saved once more
            self._known = self._known.select(self._known.steps != step)
        if len(self.folder.steps()) < FEWEST:
            return None
        prepared, self._prepared = self._prepared or self._prepare(), None
        resources = available(self._options, None)
        adapters = adapters_of(prepared.plan)
        self.remarks = [] if adapters else rounding(prepared.stored_dtype)
        if adapters:
            found = form_grams(prepared, resources, lambda _: lambda _: None)
        elif self._sample is not None:
            last = prepared.plan.steps[-1] == step
            brought = live if last and live is not None else {}
            found = self._sample.grow(prepared.plan, brought, prepared.fingerprint())
        else:
            tensors = grow(prepared.plan, self._known, self._memory, resources.workers)
            found = SeriesStatistics(prepared.plan.steps, tensors, prepared.fingerprint())
        self._known = found
        figures = _figures(of_series(prepared, found, alone=True).report)
        self.history = [f for f in self.history if f.step < step] + [figures]
        self._save(prepared.recipe.to_yaml())
        return figures

    def epilogue(self) -> str:
        """Say what was kept, and with which command one goes on."""
        count = len(self.folder.steps())
        kept = f"{count} checkpoint{'s' * (count != 1)} kept in {self.folder.root}"
        if self._known is None:
            return f"{kept}; a trajectory needs {FEWEST}, so save more often"
        reuse = "" if self._known.sampled else f" --reuse {self.gram}"
        said = self.history[-1].verdict if self.history else "unknown"
        remarks = "".join(f"\nNote: {remark}." for remark in self.remarks)
        verdict = f"Weights say of step {self._target:g}: {said}"
        further = ""
        if self._reached():
            verdict = "The run is at its target, so say how far to go"
            further = " --target-step N"
        return (
            f"{kept}. {verdict}.{remarks}\nGo on with\n"
            f"  relex-merge inspect {self.recipe}{further}\n"
            f"  relex-merge run {self.recipe} OUT{reuse}{further}"
        )

    def _prepare(self) -> prepare.Prepared:
        folders = [self.folder.at(step) for step in self.folder.steps()]
        settings = {
            "merge_method": METHOD,
            "base_model": self._base,
            "models": [{"model": str(folder)} for folder in folders],
            "parameters": {"target_step": self._target},
        }
        try:
            with progress_bars(shown=False):
                return prepare.prepare(load_recipe(settings), [Variant()], self._options)
        except NeedsMergekit as reason:
            raise RelexError(
                f"the trajectory of this model cannot be followed: it has {reason}"
            ) from reason

    def _load(self) -> SeriesStatistics | None:
        """Return the saved Gram matrices, if they are of just the checkpoints that are there."""
        try:
            saved = SeriesStatistics.load(self.gram)
        except RelexError:
            return None
        if len(self.folder.steps()) < FEWEST or self._prepare().fingerprint() != saved.fingerprint:
            return None
        return saved

    def _save(self, recipe: str) -> None:
        assert self._known is not None  # it has just been formed
        self._known.save(self.gram)
        self.recipe.write_text(self._as_asked(recipe), encoding="utf-8")
        history = [asdict(figures) for figures in self.history]
        (self.folder.root / HISTORY).write_text(json.dumps(history, indent=1), encoding="utf-8")

    def _as_asked(self, recipe: str) -> str:
        """Return the recipe with what a reader must know of a target that no one asked for."""
        if not self._assumed:
            return recipe
        if not self._reached():
            return ASSUMED + recipe
        settings = yaml.safe_load(recipe)
        del settings["parameters"]
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100)
        return NO_TARGET + text

    def _reached(self) -> bool:
        """Tell whether the target lies no further than the last checkpoint."""
        return self._known is not None and self._target <= self._known.steps[-1]

    def _read_history(self) -> Sequence[Figures]:
        try:
            text = (self.folder.root / HISTORY).read_text(encoding="utf-8")
            return [Figures(**entry) for entry in json.loads(text)]
        except (OSError, ValueError, TypeError):
            return []


def _figures(report: Report) -> Figures:
    steps, summary = report["steps"], report["summary"]
    tried = [(t["ratio"], t["skill"]["method"]) for t in report["backtests"]["grid"]]
    known = [(ratio, skill) for ratio, skill in tried if skill is not None]
    ratio, skill = max(known, default=(None, None))
    return Figures(
        step=float(np.max(steps)),
        checkpoints=len(steps),
        explained_variance=summary["explained_variance"]["model"],
        r2=summary["r2"]["model"],
        straightness=summary["straightness"]["model"],
        backtest_skill=summary["backtest_skill"]["model"],
        verdict=report["verdict"]["verdict"],
        furthest_ratio=ratio,
        furthest_skill=skill,
    )
