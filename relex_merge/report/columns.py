"""The figures of a tensor that reports show: one place for their headings, meanings and formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from relex_merge.formatting import cell

Key: TypeAlias = Literal[
    "explained_variance",
    "r2",
    "straightness",
    "angle",
    "end_speed",
    "backtest_skill",
    "relative_update",
    "moved",
    "numel",
]


@dataclass(frozen=True)
class Column:
    """A figure of a tensor, or of several laid end to end.

    Attributes:
        key: its name in ``relex_report.json``.
        heading: its name in tables.
        meaning: what it is, in a line.
        form: its format, as :func:`relex_merge.formatting.cell` takes it.
    """

    key: Key
    heading: str
    meaning: str
    form: str

    def shown(self, value: float | None) -> str:
        """Write a value of it."""
        return cell(value, self.form)


COLUMNS = (
    Column(
        "explained_variance",
        "EV",
        "explained variance: share of the movement that lies in the kept directions; a random "
        "walk has about 0.81 in one",
        ".3f",
    ),
    Column(
        "r2",
        "R²",
        "how well a polynomial (a line, unless degree says otherwise) fits the coefficients; 1 is "
        "exactly",
        ".3f",
    ),
    Column(
        "straightness",
        "straight",
        "straightness: distance from the base over length of the way; 1 is a line, 1/√T a random "
        "walk of T checkpoints",
        ".2f",
    ),
    Column(
        "angle",
        "angle",
        "degrees between the directions of the first and of the second half of the checkpoints",
        ".0f°",
    ),
    Column(
        "end_speed",
        "speed",
        "speed at the last checkpoint over the mean speed; 1 is a line, below 1 slows down",
        ".2f",
    ),
    Column(
        "backtest_skill",
        "skill",
        "of predicting the last checkpoint at your ratio; 1 is perfect, 0 as good as standing "
        "still, below 0 worse",
        "+.2f",
    ),
    Column(
        "relative_update",
        "update",
        "distance of the last checkpoint from the base, over the length of the base",
        ".1e",
    ),
    Column(
        "moved",
        "moved",
        "share of the weights that differ from the base at the last checkpoint",
        ".1%",
    ),
)
SIZE = Column("numel", "weights", "how many numbers the tensor holds", ",d")


def legend() -> dict[str, str]:
    """Return what every figure means, by its name in the report's JSON."""
    return {column.key: column.meaning for column in (*COLUMNS, SIZE)}
