"""The types of what ``evaluate --json FILE`` holds; plain values, None where undefined.

They live here, below who measures, since reports and cards show what was measured.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from typing_extensions import NotRequired, TypedDict

from relex_merge.trajectory.backtests.results import Word

Better: TypeAlias = Literal["yes", "no", "cannot be told"]  # than the last observed checkpoint
Kind: TypeAlias = Literal["geometry", "function", "labels"]  # of evidence
Split: TypeAlias = Literal["choosing", "reported"]


class StatementEntry(TypedDict):
    """What one kind of evidence says."""

    evidence: Kind
    verdict: Word | None
    says: list[str]
    cannot_see: str


class VerdictEntry(TypedDict):
    """The verdict that counts, and the evidence that it follows."""

    verdict: Word
    reasons: list[str]
    evidence: Kind
    statements: list[StatementEntry]


class BacktestEntry(TypedDict):
    """A functional backtest; skill is None where it is undefined."""

    ratio: float
    skill: float | None
    stderr: float | None


class _CandidateEntry(TypedDict, total=False):
    target_step: float
    scale: float
    anchor: str


class ModelEntry(_CandidateEntry):
    """Which model: its name, and for a candidate what it is."""

    model: str


class DivergenceEntry(ModelEntry):
    """KL from the last observed checkpoint, nats a token."""

    kl: float
    stderr: float | None


class ResponseEntry(ModelEntry):
    """Sampled responses: tokens, share cut off, share of repeated 4-grams."""

    responses: int
    length: float
    length_stderr: float | None
    truncated: float
    truncated_stderr: float | None
    repetition: float
    repetition_stderr: float | None


class FunctionEntry(TypedDict):
    """What text showed. tokens: response tokens; prompts: independent ones among them.

    remarks: sentences on what could not be measured.
    """

    tokens: int
    prompts: int
    text: str
    backtests: list[BacktestEntry]
    candidates: list[DivergenceEntry]
    others: list[DivergenceEntry]
    responses: list[ResponseEntry]
    remarks: NotRequired[list[str]]


class TaskEntry(ModelEntry):
    """One model on one part of a task.

    difference: from the last observed checkpoint over the same questions, positive is better;
    None for that checkpoint itself. interval: of the difference, 95 %.
    """

    metric: str
    score: float
    stderr: float | None
    n: int
    repeats: int
    difference: float | None
    difference_stderr: float | None
    interval: list[float] | None
    better: Better | None
    would_tell: int | None
    split: Split


class ChosenEntry(ModelEntry):
    """The winner; the last observed checkpoint has scale 0 and its own step as target."""

    reasons: list[str]


class DatasetEntry(TypedDict):
    """Where the questions of a task come from: a dataset on the Hub, its configuration, its split.

    None where they come from anywhere else, or where the dataset has only one configuration.
    """

    dataset: str | None
    config: str | None
    split: str | None


class Evaluation(TypedDict):
    """The whole file.

    series: fingerprint of base and checkpoints. last_step: s_T. settings: ``method`` among them is
    the recipe's mark (:func:`relex_merge.recipe.mark.method_mark`). datasets: of the tasks.
    """

    verdict: VerdictEntry
    function: FunctionEntry
    tasks: dict[str, list[TaskEntry]]
    datasets: NotRequired[dict[str, DatasetEntry]]
    chosen: ChosenEntry
    series: str
    last_step: float
    sentences: list[str]
    settings: dict[str, object]
    versions: dict[str, str]
