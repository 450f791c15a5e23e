"""Finished outputs as they lie on the disk, and which series they are of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from relex_merge.checkpoints.complete import check_finished
from relex_merge.checkpoints.files import RECIPE, REPORT
from relex_merge.errors import RelexError
from relex_merge.pipeline.inspection import load_statistics
from relex_merge.recipe.advice import write_one
from relex_merge.recipe.load import Recipe, load_recipe
from relex_merge.report.contents import Report, read_report
from relex_merge.report.evaluated import written
from relex_merge.report.final_verdict import Geometry

if TYPE_CHECKING:
    from relex_merge.report.candidates import Candidate
    from relex_merge.trajectory.gram import Array


@dataclass(frozen=True)
class Output:
    """One finished output.

    Attributes:
        folder: where it lies.
        recipe: what it was made by.
        report: of its own.
        candidate: its target step, scale and anchor.
        steps: observed (T,).
        series: fingerprint of the base and the checkpoints that it was made from.
    """

    folder: Path
    recipe: Recipe
    report: Report
    candidate: Candidate
    steps: Array
    series: str

    @property
    def geometry(self) -> Geometry:
        """What the weights alone say, whatever outranked it when the output was made."""
        verdict = self.report["verdict"]
        for statement in verdict.get("statements", []):
            if statement["evidence"] == "geometry" and statement["verdict"] is not None:
                return Geometry(statement["verdict"], statement["says"])
        return Geometry(verdict["verdict"], verdict["reasons"])


def read_outputs(folders: Sequence[Path]) -> list[Output]:
    """Read several finished outputs of one series.

    Args:
        folders: outputs, or folders of outputs (``step-500``, ``step-1000-scale-0.3``, …). The
            order is kept; outputs in one folder are ordered by target step and scale.

    Raises:
        RelexError: one is no finished output, or two are of different series.
    """
    found = [output for folder in folders for output in _in(folder)]
    first = found[0]
    for output in found[1:]:
        if output.series != first.series:
            raise RelexError(
                f"{first.folder} and {output.folder} were made from different series, or from one "
                "whose files changed in between; evaluate them one at a time"
            )
    places = Counter(output.folder for output in found)
    twice = [str(folder) for folder, count in places.items() if count > 1]
    if twice:
        raise RelexError(f"{twice[0]} is named twice; name each output once")
    return _told_apart(found)


def _in(folder: Path) -> list[Output]:
    if (folder / REPORT).is_file():
        return [_read(folder)]
    inside = sorted(path.parent for path in folder.glob(f"step-*/{REPORT}"))
    if not inside:
        raise RelexError(
            f"{folder} is no finished output of a relex recipe, nor a folder of such outputs (no "
            f"{REPORT} in it); name a recipe, or what `relex-merge run` wrote; for the checkpoints "
            f"of a run: {write_one(folder)}"
        )
    return sorted(map(_read, inside), key=lambda output: output.candidate)


def _read(folder: Path) -> Output:
    folder = folder.resolve()
    check_finished(folder)
    report = read_report(folder / REPORT)
    candidate = written(report)
    if candidate is None:
        raise RelexError(
            f"{folder} extrapolates nothing (it is a reconstruction, or the last observed "
            "checkpoint), so there is no candidate to evaluate"
        )
    if not (folder / RECIPE).is_file():
        raise RelexError(f"{folder} has no {RECIPE}, which says what it was made from")
    statistics = load_statistics(folder)
    recipe = load_recipe(folder / RECIPE)
    return Output(folder, recipe, report, candidate, statistics.steps, statistics.fingerprint)


def _told_apart(outputs: Sequence[Output]) -> list[Output]:
    """Name candidates by their folders where target, scale and anchor do not tell them apart."""
    count = Counter(output.candidate for output in outputs)
    return [
        replace(output, candidate=replace(output.candidate, label=output.folder.name))
        if count[output.candidate] > 1
        else output
        for output in outputs
    ]
