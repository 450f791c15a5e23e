"""What an evaluation is told besides its recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from relex_merge.evaluation.backends import BackendRequest
from relex_merge.evaluation.lm_eval_call import TaskSettings
from relex_merge.evaluation.sampling import Sampling

if TYPE_CHECKING:
    from mergekit.options import MergeOptions

SCALES = (0.1, 0.3, 0.5, 1.0)  # λ of the default grid, from the last observed checkpoint on
STORE = Path(".relex-evaluations")


@dataclass(frozen=True, kw_only=True)
class TaskRequest:
    """Which tasks are run.

    Attributes:
        names: as lm-eval knows them.
        include_path: a folder with more task files.
        limit: only the first questions of each task, or a share below 1.
        settings: few-shot examples, decoding, repeats.
    """

    names: tuple[str, ...]
    include_path: Path | None = None
    limit: float | None = None
    settings: TaskSettings = field(default_factory=TaskSettings)


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """The arguments of :func:`relex_merge.evaluate`, made concrete.

    Attributes:
        merge: mergekit's own options.
        targets: target steps of the candidates; empty for the recipe's own.
        scales: λ of the candidates; empty for ``SCALES``.
        anchors: of the candidates; empty for "last", and beside it the plain line.
        prompts: a file of prompts that are answered by the last observed checkpoint.
        text: a file of finished text; neither: samples from the model's own start.
        sampling: how responses are sampled.
        shorten: whether fewer tokens are sampled where the model has no room for as many.
        describe: whether candidates answer the prompts too, to be described.
        tasks: what is measured with labels; None for nothing.
        backend: of lm-eval.
        also: references of other models, such as the real end of the run.
        every: also every observed checkpoint whose step is a multiple of this.
        batch_size: sequences in a forward pass.
        store: a folder of finished measurements.
        memory_budget: bytes that the engine may allocate.
        stream: whether Hub weights are read in ranges. Base and last checkpoint are needed often,
            and so are downloaded whatever it says.
        quiet: whether progress bars are hidden.
        notify: called with remarks for the user.
    """

    merge: MergeOptions
    targets: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()
    anchors: tuple[str, ...] = ()
    prompts: Path | None = None
    text: Path | None = None
    sampling: Sampling = field(default_factory=Sampling)
    shorten: bool = False
    describe: bool = False
    tasks: TaskRequest | None = None
    backend: BackendRequest = field(default_factory=BackendRequest)
    also: tuple[str, ...] = ()
    every: int | None = None
    batch_size: int = 16
    store: Path = STORE
    memory_budget: int | None = None
    stream: bool | None = None
    quiet: bool = False
    notify: Callable[[str], None] = print

    @property
    def streams(self) -> bool | None:
        """How the series is read: what lies in the cache is read from there."""
        return None if self.stream else self.stream
