"""What a trust report holds: the types of ``relex_report.json``, and how the file is read.

Undefined figures are None. Keys that every report has stand in a class of their own; the others are
missing in reports of older versions, or where a run has no use for them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, TypeAlias, cast

from typing_extensions import NotRequired, TypedDict

from relex_merge.errors import RelexError
from relex_merge.report.evaluation import Evaluation, Kind, StatementEntry
from relex_merge.trajectory.backtests.entries import ChoiceEntry, ModelFigures, WalkFigures
from relex_merge.trajectory.backtests.gaps import Gap
from relex_merge.trajectory.backtests.results import Word

Skills: TypeAlias = dict[str, float | None]  # predictor → skill

# The figures that the summary gives over all tensors.
Measure: TypeAlias = Literal["explained_variance", "r2", "straightness", "backtest_skill"]
MEASURES: tuple[Measure, ...] = ("explained_variance", "r2", "straightness", "backtest_skill")


class Method(TypedDict):
    """The parameters of the method, as most tensors have them."""

    name: str
    rank: int
    degree: int
    window: int | None
    mode: str
    predictor: NotRequired[str]
    scope: NotRequired[str]
    anchor: NotRequired[str]
    scale: NotRequired[float]


class Reference(TypedDict):
    """A model that was read: the commit where it came from the Hub, the state of a place's files.

    The state is a hash of their names, sizes and versions (ETag, generation, Xet hash).
    """

    reference: str
    sha: str | None
    state: NotRequired[str]


class CheckpointReference(Reference):
    """A checkpoint that was read, and its step."""

    step: float


class Origin(TypedDict):
    """What a report says of how it was made, beside its figures."""

    method: Method
    base: Reference
    checkpoints: list[CheckpointReference]
    versions: dict[str, str]


class Range(TypedDict):
    """A figure over the tensors for which it is defined, and of the whole model."""

    min: float | None
    mean: float | None
    max: float | None
    model: float | None


class Summary(TypedDict):
    """The figures to look at first."""

    explained_variance: Range
    r2: Range
    straightness: Range
    backtest_skill: Range


class VerdictEntry(TypedDict):
    """The verdict, its reasons as sentences, and the furthest step that backtests support.

    With an evaluation also the kind of evidence that the verdict follows, and what every kind says.
    """

    verdict: Word
    reasons: list[str]
    supported_target: NotRequired[float | None]
    evidence: NotRequired[Kind]
    statements: NotRequired[list[StatementEntry]]


class TensorEntry(ModelFigures):
    """The figures of a tensor, or of several laid end to end."""

    r2: float | None
    baseline_skills: Skills
    angle: float | None
    curvature_gain: float | None
    spectrum: list[float | None]
    step_spectrum: list[float | None]
    relative_update: float | None
    numel: int
    standard_errors: NotRequired[dict[str, float | None]]


class ModelEntry(TensorEntry):
    """The figures of the whole model, and its coefficient along its first direction.

    At every checkpoint, of the polynomial fitted to them, of the model that is written, and of the
    curve on which that model lies: (step, coefficient) pairs, empty where none is continued.
    """

    coefficients: list[float | None]
    fitted: list[float | None]
    predicted: float | None
    curve: NotRequired[list[list[float | None]]]


class WalkEntry(WalkFigures):
    """The figures of a random walk that was observed at the same steps."""

    r2: float | None
    backtest_skill: float | None
    angle: float | None
    spectrum: list[float | None]
    step_spectrum: list[float | None]


class TrialEntry(TypedDict):
    """One backtest: fitted on the first checkpoints, predicting the one at ``step``."""

    checkpoints: int
    last_fitted_step: float
    step: float
    ratio: float
    skill: Skills


class ForecastEntry(TypedDict):
    """What all backtests together lead one to expect.

    ``law`` is log error = a + b log ratio + c log s_h; a point of ``curve`` is a ratio and its low,
    expected and high skill.
    """

    law: list[float | None]
    scatter: float | None
    widest_ratio: float
    skill: float | None
    curve: list[list[float | None]]


class BacktestsEntry(TypedDict):
    """The backtests: names of the predictors, skill at the user's own ratio, and all trials."""

    labels: dict[str, str]
    cut: int | None
    skill: Skills
    grid: list[TrialEntry]
    forecast: ForecastEntry | None


class ReconstructionEntry(TypedDict):
    """How far the reconstruction of an observed checkpoint is from the real one."""

    step: float
    relative_error: float | None


class AdapterEntry(TypedDict):
    """What an adapter holds of the update's energy ‖θ − θ₀‖²: shares that it leaves out."""

    rank: int
    bytes: int
    discarded: float
    left_out: float
    modules: dict[str, float]


class ParametersEntry(TypedDict):
    """Parameters of the method, and the tensors that have them."""

    tensors: list[str]
    target_step: float
    rank: int
    degree: int
    window: int | None
    mode: str
    predictor: str
    scope: str
    auto_target: bool
    anchor: NotRequired[str]
    scale: NotRequired[float]


class Promised(Origin):
    """The keys that every report has had and will have."""

    target_step: float
    summary: Summary
    verdict: VerdictEntry
    tensors: dict[str, TensorEntry]


class OutputError(TypedDict):
    """How far written tensors are from those that all numbers would have given, as norms.

    ``error`` is the estimate, ``update`` what is added to the base, ``rounding`` the cost of the
    output's dtype.
    """

    error: float
    update: float
    rounding: float


class SampleEntry(TypedDict):
    """The part of the numbers that the figures were estimated from.

    ``settled`` says whether the signs that the verdict hangs on are clear; None where the standard
    errors are not known.
    """

    share: float
    numbers: int
    of: int
    blocks: int
    seed: int
    settled: bool | None
    output_error: NotRequired[OutputError]


class Report(Promised, total=False):
    """The content of ``relex_report.json``. legend: what the figures of a tensor mean."""

    ratio: float | None
    steps: list[float]
    dtype: str
    model: ModelEntry
    random_walk: WalkEntry
    backtests: BacktestsEntry
    holdout: list[TrialEntry] | None
    reconstruction: ReconstructionEntry | None
    layers: dict[str, TensorEntry]
    kinds: dict[str, TensorEntry]
    gaps: list[Gap]
    legend: dict[str, str]
    choice: ChoiceEntry
    adapter: AdapterEntry
    parameters: list[ParametersEntry]
    evaluation: Evaluation
    sample: SampleEntry


def to_json(report: Report) -> str:
    """Return the text of the file."""
    return json.dumps(report, indent=1) + "\n"


def read_report(path: Path) -> Report:
    """Read a report from its file.

    Raises:
        RelexError: there is no such file, or it holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RelexError(f"{path.parent} has no readable {path.name} ({error})") from error
    return as_report(content, path)


def as_report(content: object, path: Path) -> Report:
    """Return ``content``, which was read from ``path``, once it is known to be a report.

    Raises:
        RelexError: it is none; the message names the first entry that is not as it should be.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(Report).validate_python(content, strict=True)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise RelexError(
            f"{path} is not a report of relex-merge ({place + ': ' if place else ''}"
            f"{fault['msg']}); run the recipe again"
        ) from error
    return cast("Report", content)  # what pydantic returns lacks the keys that it does not know


def missing(gap: Gap) -> str:
    """Say in words what could not be computed."""
    return f"{gap['part']} could not be computed: {gap['reason']}"
