"""What lies beside the weights: expanded recipe, report, Gram matrices, figure, model card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from relex_merge.checkpoints.files import CARD, FIGURE, GRAM, RECIPE, REPORT
from relex_merge.checkpoints.locate import Snapshot
from relex_merge.errors import RelexError, disk_errors
from relex_merge.formatting import whole
from relex_merge.recipe.load import Recipe
from relex_merge.recipe.names import METHOD
from relex_merge.report import build_report, save_plot
from relex_merge.report.contents import Method, Report, to_json
from relex_merge.report.front_matter import base_license
from relex_merge.report.model_card import model_card
from relex_merge.trajectory.backtests.results import STAY, Choice
from relex_merge.trajectory.parameters import Predictor
from relex_merge.trajectory.statistics import SeriesStatistics

_PACKAGES = ("relex-merge", "mergekit", "torch", "transformers", "safetensors", "huggingface_hub")


@dataclass(frozen=True)
class Subject:
    """The model that a card is about, beside its report and recipe.

    Attributes:
        name: the card's title.
        base: the base model, whose license is stated.
        architectures: class names in the model's configuration.
    """

    name: str
    base: Snapshot
    architectures: Sequence[str]


def make_report(
    statistics: SeriesStatistics,
    predictors: Mapping[str, Predictor],
    snapshots: Sequence[Snapshot],
    dtype: str,
    holdout: SeriesStatistics | None = None,
    choice: Choice | None = None,
) -> Report:
    """Make the content of relex_report.json.

    Args:
        statistics: of the observed checkpoints.
        predictors: tensor → its own.
        snapshots: base first, then the order of the steps.
        dtype: of the checkpoints' files ("bfloat16").
        holdout: statistics over the same and later checkpoints.
        choice: how the predictors were found, where the recipe left them open.
    """
    moving = [p for p in predictors.values() if p.predictor != STAY]
    main, _ = Counter(moving or predictors.values()).most_common(1)[0]
    method: Method = {
        "name": METHOD,
        "rank": main.rank,
        "degree": main.degree,
        "window": main.window,
        "mode": main.mode,
    }
    if main.predictor != "linear" or choice is not None:  # not just the paper's own
        method |= {"predictor": main.predictor, "scope": main.scope}
    base, *checkpoints = snapshots
    report = build_report(
        statistics,
        predictors,
        {
            "method": method,
            "base": {"reference": base.reference, "sha": base.sha},
            "checkpoints": [
                {"reference": s.reference, "step": whole(step), "sha": s.sha}
                for s, step in zip(checkpoints, statistics.steps, strict=True)
            ],
            "versions": {package: version(package) for package in _PACKAGES},
        },
        target_step=whole(main.target_step),
        dtype=dtype,
        holdout=holdout,
    )
    if choice is not None:
        report["choice"] = choice.as_json()
    return report


def write_documents(
    folder: Path,
    recipe: Recipe,
    report: Report,
    statistics: SeriesStatistics,
    *,
    card: Subject | None,
    figure: bool,
    notify: Callable[[str], None],
) -> None:
    """Write everything beside the weights into a finished model folder.

    A figure or a card that cannot be made is left out, with a warning: it is not worth the model.

    Args:
        folder: the model's.
        recipe: the recipe of this one model.
        report: its report.
        statistics: of the observed checkpoints.
        card: what the card is about; None for no card.
        figure: whether the report is drawn.
        notify: called with the warning.

    Raises:
        RelexError: recipe, report or Gram matrices cannot be written.
    """
    text = recipe.to_yaml()
    with disk_errors(folder):
        (folder / RECIPE).write_text(text, encoding="utf-8")
        (folder / REPORT).write_text(to_json(report), encoding="utf-8")
        statistics.save(folder / GRAM)

    drawn = None
    if figure:
        with _optional(folder / FIGURE, notify):
            save_plot(report, statistics, folder / FIGURE)
            drawn = FIGURE
    if card is not None:
        with _optional(folder / CARD, notify):
            (folder / CARD).write_text(_card(report, text, card, drawn), encoding="utf-8")


def _card(report: Report, recipe: str, about: Subject, figure: str | None) -> str:
    causal = any(a.endswith(("ForCausalLM", "LMHeadModel")) for a in about.architectures)
    return model_card(
        report,
        recipe,
        name=about.name,
        license=base_license(about.base.folder / CARD),
        pipeline_tag="text-generation" if causal else None,
        figure=figure,
    )


@contextmanager
def _optional(file: Path, notify: Callable[[str], None]) -> Iterator[None]:
    """Go on without ``file`` where it cannot be written, and say why; no half of it stays."""
    try:
        yield
    except Exception as error:  # whatever it is: the weights are finished and are not lost for it
        if file.is_file():
            file.unlink()
        kind = "" if isinstance(error, RelexError) else f"{type(error).__name__}: "
        reason = " ".join(f"{kind}{error}".split())
        notify(f"warning: {file.name} is left out, the model is complete ({reason})")
