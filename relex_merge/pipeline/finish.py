"""What stands beside the weights: recipe, Gram matrices, report, figures and model card.

None of it may cost the model. What cannot be written is left out, and the user is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from relex_merge.checkpoints.files import (
    CARD,
    EVAL_RESULTS,
    EVALUATION_FIGURE,
    FIGURE,
    GRAM,
    RECIPE,
    REPORT,
)
from relex_merge.errors import RelexError, disk_errors, where_it_happened
from relex_merge.formatting import whole
from relex_merge.pipeline.adapter_output import remarks
from relex_merge.pipeline.asked import with_parameters
from relex_merge.pipeline.documents import make_report
from relex_merge.recipe.mark import method_mark
from relex_merge.report import save_plot
from relex_merge.report.contents import to_json
from relex_merge.report.evaluated import with_evaluation
from relex_merge.report.evaluation_plot import save_evaluation_plot
from relex_merge.report.front_matter import base_license
from relex_merge.report.hub_results import benchmark_files
from relex_merge.report.model_card import model_card
from relex_merge.report.sampled import sample_remarks

if TYPE_CHECKING:
    from relex_merge.checkpoints.locate import Snapshot
    from relex_merge.pipeline.options import Notify, RunOptions
    from relex_merge.recipe.load import Recipe
    from relex_merge.report.contents import AdapterEntry, Report, SampleEntry
    from relex_merge.report.evaluation import Evaluation
    from relex_merge.trajectory.backtests.results import Choice
    from relex_merge.trajectory.parameters import Parameters
    from relex_merge.trajectory.statistics import SeriesStatistics


@dataclass(frozen=True, kw_only=True)
class TargetOutput:
    """One target's folder, weights written, and what its documents are made from.

    Attributes:
        folder: where the documents go.
        name: of the model, for its card.
        recipe: with this target's step.
        statistics: of every extrapolated tensor, over the observed checkpoints.
        asked: name of a tensor → its parameters as the recipe has them.
        settled: the same, with what was left open chosen.
        snapshots: base first, then the checkpoints in the order of their steps.
        dtype: in which the last checkpoint stores most of its numbers.
        architectures: names of transformers classes.
        adapter: what the report says of the adapter, if it is one.
        choice: how open parameters were settled, if any were.
        evaluation: of the series, if there is one.
        sample: what its weight vectors come from, if not from all numbers.
    """

    folder: Path
    name: str
    recipe: Recipe
    statistics: SeriesStatistics
    asked: Mapping[str, Parameters]
    settled: Mapping[str, Parameters]
    snapshots: Sequence[Snapshot]
    dtype: str
    architectures: Sequence[str]
    adapter: AdapterEntry | None = None
    choice: Choice | None = None
    evaluation: Evaluation | None = None
    sample: SampleEntry | None = None

    @property
    def target_step(self) -> float:
        """The step that most tensors are extrapolated to."""
        steps = Counter(parameters.target_step for parameters in self.settled.values())
        return whole(steps.most_common(1)[0][0])


def write_documents(output: TargetOutput, options: RunOptions) -> Report | None:
    """Write what can be written of the documents; return the report, None if there is none."""
    report: Report | None = None
    folder, notify = output.folder, options.notify
    with _spare("the recipe", notify, folder / RECIPE):
        (folder / RECIPE).write_text(output.recipe.to_yaml(), encoding="utf-8")
    with _spare("the file of Gram matrices", notify, folder / GRAM):
        output.statistics.save(folder / GRAM)
    with _spare("the trust report", notify, folder / REPORT):
        report = _report(output)
        (folder / REPORT).write_text(to_json(report), encoding="utf-8")
    where = f"{output.name}: " if len(options.variants) > 1 else ""
    for remark in remarks(output.adapter) if output.adapter else ():
        notify(where + remark)
    for remark in sample_remarks(report) if report is not None else ():
        notify(where + remark)
    if report is not None:
        _write_shown(output, report, options)
    return report


def _write_shown(output: TargetOutput, report: Report, options: RunOptions) -> None:
    """Write what shows a report: figures, results for the Hub, and the card that names them."""
    folder, notify = output.folder, options.notify
    figures: list[str] = []
    if options.figure:
        with _spare("the figure", notify, folder / FIGURE):
            save_plot(report, output.statistics, folder / FIGURE)
            figures.append(FIGURE)
    if options.figure and "evaluation" in report:
        with _spare("the figure of the evaluation", notify, folder / EVALUATION_FIGURE):
            save_evaluation_plot(report["evaluation"], folder / EVALUATION_FIGURE)
            figures.append(EVALUATION_FIGURE)
    if options.merge.write_model_card:
        with _spare("the results of benchmarks", notify, folder / EVAL_RESULTS):
            for name, text in benchmark_files(report).items():
                (folder / EVAL_RESULTS).mkdir(exist_ok=True)
                (folder / EVAL_RESULTS / name).write_text(text, encoding="utf-8")
        with _spare("the model card", notify, folder / CARD):
            (folder / CARD).write_text(_card(output, report, figures), encoding="utf-8")


def _report(output: TargetOutput) -> Report:
    report = make_report(
        output.statistics, output.settled, output.snapshots, output.dtype, choice=output.choice
    )
    report = with_parameters(report, output.recipe, output.statistics.steps, output.asked)
    if output.sample is not None:
        report["sample"] = output.sample
    if output.evaluation is not None:
        report = with_evaluation(report, output.evaluation, method_mark(output.recipe))
    if output.adapter is not None:
        report["adapter"] = output.adapter
    return report


def _card(output: TargetOutput, report: Report, figures: Sequence[str]) -> str:
    causal = any(a.endswith(("ForCausalLM", "LMHeadModel")) for a in output.architectures)
    return model_card(
        report,
        output.recipe.to_yaml(),
        name=output.name,
        license=base_license(output.snapshots[0].folder / CARD),
        pipeline_tag="text-generation" if causal else None,
        figure=FIGURE if FIGURE in figures else None,
        evaluation_figure=EVALUATION_FIGURE if EVALUATION_FIGURE in figures else None,
    )


@contextmanager
def _spare(what: str, notify: Notify, file: Path) -> Iterator[None]:
    """Turn an error into a warning that names what is missing, and why."""
    try:
        with disk_errors(file):
            yield
    except Exception as error:  # the model is written, and matters more
        with suppress(OSError):
            file.unlink(missing_ok=True)
        reason = str(error) if isinstance(error, RelexError) else where_it_happened(error)
        notify(f"warning: {what} ({file.name}) is missing, the model is not: {reason}")
