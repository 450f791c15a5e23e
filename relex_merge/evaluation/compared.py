"""What an evaluation compares, ready to be put into memory; how it was found is forgotten here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from relex_merge.engine.threads import single_threaded
from relex_merge.evaluation.live_model import LiveModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relex_merge.evaluation.subjects import Subjects
    from relex_merge.report.candidates import Candidate, Model
    from relex_merge.report.final_verdict import Geometry

SMALL = 4_000_000  # numbers of a model that a second thread makes slower on any busy machine


@dataclass(frozen=True)
class FunctionalBacktest:
    """A functional backtest that can be made.

    ratio: s_T / s_h. fitted: h. predicted, still: what puts the prediction, and the last checkpoint
    before the cut, into memory.
    """

    ratio: float
    fitted: int
    predicted: Callable[[], LiveModel]
    still: Callable[[], LiveModel]


@dataclass(frozen=True)
class Compared:
    """The models of an evaluation.

    Attributes:
        name: of the recipe or the outputs, for readers.
        mark: of the recipe (:func:`relex_merge.recipe.mark.method_mark`).
        last_step: s_T.
        geometry: what the weights say about the first candidate.
        candidates: the verdict is about the first one.
        subjects: puts all models into memory.
        backtests: those that can be made.
        remarks: sentences on what cannot be measured.
        shown: models that are asked the reported questions whatever is chosen.
    """

    name: str
    mark: str
    last_step: float
    geometry: Geometry
    candidates: Sequence[Candidate]
    subjects: Subjects
    backtests: Sequence[FunctionalBacktest]
    remarks: Sequence[str] = field(default=())
    shown: Sequence[Model] = field(default=())


@contextmanager
def fitting_threads(model: torch.nn.Module) -> Iterator[None]:
    """Compute a tiny model on one thread: at its size several wait for each other."""
    if sum(p.numel() for p in model.parameters()) > SMALL:
        yield
        return
    with single_threaded():
        yield
