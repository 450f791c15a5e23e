"""Where an evaluation is written: its file, the recipe that won, the figure."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from relex_merge.errors import RelexError
from relex_merge.evaluation.chosen_recipe import write_chosen
from relex_merge.recipe.load import Recipe
from relex_merge.report.evaluated import is_of
from relex_merge.report.evaluation_file import (
    EVALUATION_SUFFIX,
    evaluation_beside,
    load_evaluation,
    write_evaluation,
)
from relex_merge.report.evaluation_plot import save_evaluation_plot

if TYPE_CHECKING:
    from relex_merge.evaluation.outputs import Output
    from relex_merge.pipeline.options import Notify
    from relex_merge.report.evaluation import Evaluation


@dataclass(frozen=True)
class Destinations:
    """The files that the user named; None for those that are not wanted.

    json: the whole evaluation. choose: the recipe that won. plot: the figure.
    """

    json: Path | None = None
    choose: Path | None = None
    plot: Path | None = None

    def check(self) -> None:
        """Raise RelexError where one of the files cannot be written, before hours of work."""
        for file in filter(None, (self.json, self.choose, self.plot)):
            if file.is_dir():
                raise RelexError(f"{file} is a folder; name a file")
            if not file.parent.is_dir():
                raise RelexError(f"cannot write {file}: {file.parent} is no folder; make it first")
            if not os.access(file.parent, os.W_OK):
                raise RelexError(f"cannot write {file}: {file.parent} is not writable")
        if self.plot is not None:
            from relex_merge.report.style import check_format

            check_format(self.plot)

    def write(
        self, evaluation: Evaluation, evaluated: Recipe | Sequence[Output], notify: Notify
    ) -> None:
        """Write all files.

        Args:
            evaluation: what was measured.
            evaluated: on what.
            notify: called with what was written, and where the figure could not be.

        Raises:
            RelexError: a file cannot be written, or the last observed checkpoint won, so that
                there is no recipe to write.
        """
        if self.json is not None:
            write_evaluation(self.json, evaluation)
            notify(f"wrote {self.json}")
        if self.plot is not None:
            _plot(evaluation, self.plot, notify)
        if self.choose is not None:
            write_chosen(_winner(evaluation, evaluated), evaluation["chosen"], self.choose)
            beside = evaluation_beside(self.choose)
            write_evaluation(beside, evaluation)
            notify(f"wrote {self.choose}, and beside it {beside.name}")


def _plot(evaluation: Evaluation, file: Path, notify: Notify) -> None:
    try:
        save_evaluation_plot(evaluation, file)
    except Exception as error:  # a figure never costs the evaluation
        notify(f"WARNING: cannot draw {file}: {type(error).__name__}: {error}")
    else:
        notify(f"wrote {file}")


def _winner(evaluation: Evaluation, evaluated: Recipe | Sequence[Output]) -> Recipe:
    """Return the recipe of what was chosen."""
    if isinstance(evaluated, Recipe):
        return evaluated
    chosen = evaluation["chosen"]
    of_chosen = [o for o in evaluated if is_of(chosen, o.candidate)]
    named = [o for o in of_chosen if o.candidate.name == chosen["model"]]
    return [*named, *of_chosen, *evaluated][0].recipe


def write_beside(recipe: Path, evaluation: Evaluation, notify: Notify) -> None:
    """Write an evaluation beside its recipe, where ``run`` finds it by itself.

    Answers to tasks that lie there already are not replaced by an evaluation without any: labels
    outrank all else. Where the folder takes no file another one is found; nothing is lost.

    Args:
        recipe: the recipe's file.
        evaluation: what was measured.
        notify: called with where it is.
    """
    file = evaluation_beside(recipe)
    if _has_more(file, evaluation):
        kept, file = file, file.with_name(f"{recipe.stem}.text{EVALUATION_SUFFIX}")
        notify(f"{kept} has answers to tasks and is kept; this evaluation has none: {file}")
    reasons = []
    for place in (file.parent, Path.cwd(), Path(tempfile.gettempdir())):
        try:
            write_evaluation(place / file.name, evaluation)
        except RelexError as error:
            reasons.append(f"WARNING: {error}")
            continue
        for reason in reasons:
            notify(reason)
        if reasons:
            notify(f"give {place / file.name} to `relex-merge run --evaluation`")
        notify(f"wrote {place / file.name}")
        return
    for reason in reasons:
        notify(reason)


def _has_more(file: Path, evaluation: Evaluation) -> bool:
    """Tell whether a file holds answers to tasks on the same models, and the evaluation none."""
    if evaluation["tasks"] or not file.is_file():
        return False
    try:
        found = load_evaluation(file)
    except RelexError:
        return False
    same = found["series"] == evaluation["series"]
    return bool(found["tasks"]) and same and _method(found) == _method(evaluation)


def _method(evaluation: Evaluation) -> object:
    return evaluation["settings"].get("method")
