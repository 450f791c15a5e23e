"""The evaluation that a run is given, or that lies beside its recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from relex_merge.errors import RelexError
from relex_merge.report.evaluation_file import check_series, evaluation_beside, load_evaluation

if TYPE_CHECKING:
    from relex_merge.recipe.load import Recipe
    from relex_merge.report.evaluation import Evaluation


@dataclass(frozen=True)
class GivenEvaluation:
    """An evaluation, of a series that is yet to be compared.

    Attributes:
        file: where it was read.
        named: whether the user named it; else it was found beside the recipe.
        content: of the file.
    """

    file: Path
    named: bool
    content: Evaluation

    def of_series(self, series: str, notify: Callable[[str], None]) -> Evaluation | None:
        """Return the evaluation of a series; None, with a word, where the one found is another's.

        Args:
            series: the fingerprint of base and checkpoints.
            notify: called with what is to be said.

        Raises:
            RelexError: one that the user named is of another series.
        """
        try:
            check_series(self.content, self.file, series)
        except RelexError as error:
            if self.named:
                raise
            notify(f"ignoring the evaluation beside the recipe: {error}")
            return None
        if not self.named:
            notify(f"found an evaluation beside the recipe: {self.file}")
        return self.content


def find_evaluation(
    named: Path | None, recipe: Recipe, notify: Callable[[str], None]
) -> GivenEvaluation | None:
    """Read the evaluation that the user named, else the one beside the recipe, if there is one.

    Args:
        named: the file that the user named.
        recipe: read from a file, or not.
        notify: called where a file beside the recipe cannot be read, and is ignored.

    Raises:
        RelexError: the file that the user named cannot be read, or is no evaluation.
    """
    if named is not None:
        return GivenEvaluation(named, True, load_evaluation(named))
    file = None if recipe.path is None else evaluation_beside(recipe.path)
    if file is None or not recipe.is_relex or not file.is_file():
        return None
    try:
        return GivenEvaluation(file, False, load_evaluation(file))
    except RelexError as error:
        notify(f"ignoring the evaluation beside the recipe: {error}")
        return None
