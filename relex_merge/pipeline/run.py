"""One run: which path it takes, and what is written beside the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relex_merge.checkpoints.locate import Snapshot
from relex_merge.engine.plan import NeedsMergekit
from relex_merge.engine.resources import available
from relex_merge.errors import RelexError
from relex_merge.formatting import whole
from relex_merge.pipeline import documents, models_to_model, output_form, prepare, through_mergekit
from relex_merge.pipeline.automatic import is_open, refuse_auto, refuse_to_stop, settle
from relex_merge.pipeline.companions import copy_companions
from relex_merge.pipeline.inspection import load_statistics
from relex_merge.pipeline.staging import Staging
from relex_merge.recipe.load import Recipe, load_recipe
from relex_merge.trajectory.backtests.results import Choice
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.statistics import SeriesStatistics

if TYPE_CHECKING:
    from mergekit.options import MergeOptions

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """A finished output.

    out: the folder; report: the content of its relex_report.json (empty for other merge methods);
    outputs: target step → folder, several when several targets were asked for.
    """

    out: Path
    report: dict[str, Any]
    outputs: dict[float, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One call of :func:`relex_merge.extrapolate`, its arguments made concrete."""

    recipe: Recipe
    out: Path
    targets: list[float | None]
    options: MergeOptions
    memory_budget: int | None
    stream: bool | None
    reuse: str | Path | None
    form: str | None
    lora_rank: int | None
    figure: bool
    quiet: bool
    notify: Notify
    anyway: bool

    def into(self, stage: Staging) -> tuple[Result, list[dict[str, Any]]]:
        """Everything up to the renaming."""
        if not self.recipe.is_relex:
            wrong = {
                "several targets": self.targets != [None],
                "--as and --lora-rank": self.form is not None or self.lora_rank is not None,
                "--reuse": self.reuse is not None,
            }
            for what in (what for what, given in wrong.items() if given):
                raise RelexError(f"{what}: for merge_method: relex; {self.recipe.name} has another")
            stage.begin(None)
            through_mergekit.run_merge(self.recipe, stage.content, self.options)
            return Result(self.out, {}), []
        try:
            return self._by_engine(stage)
        except NeedsMergekit as reason:
            if len(self.targets) > 1:
                raise RelexError(
                    f"the recipe uses {reason}, which goes through mergekit's own path, one target "
                    "at a time; run it once for each target step"
                ) from reason
            if self.form == "adapter":
                raise RelexError(f"no adapter can be written: the recipe uses {reason}") from reason
            refuse_auto(self.recipe, reason)
            self.notify(f"using mergekit's own path: the recipe uses {reason}")
            return self._by_mergekit(stage)

    def _by_engine(self, stage: Staging) -> tuple[Result, list[dict[str, Any]]]:
        prepared = prepare.prepare(self.recipe, self.targets, self.options, self.stream)
        form = output_form.form_of(prepared, self.form, self.lora_rank)
        resources = available(self.options, self.memory_budget)
        known = None if self.reuse is None else load_statistics(Path(self.reuse))
        folders = [stage.content / name for name in self._names()]
        choices: list[Choice | None] = [None] * len(self.targets)
        with progress_bar(self.quiet) as progress:
            if is_open(prepared.plan):
                if known is None:
                    known = output_form.examine(prepared, resources, progress)
                else:
                    prepare.check_known(prepared, known)
                prepared, choices = settle(prepared, known)
                for choice in choices if not self.anyway else ():
                    refuse_to_stop(choice)
            statistics, adapters = output_form.compute(
                prepared, form, stage, folders, resources, self.options, progress, known
            )
        reports = []
        for index, (target, folder) in enumerate(zip(self.targets, folders, strict=True)):
            parameters = {
                t.name: t.parameters[index]
                for t in prepared.plan.tensors
                if t.parameters and t.name in statistics.tensors
            }
            reports.append(
                self._document(
                    folder,
                    target,
                    statistics,
                    parameters,
                    prepared.snapshots,
                    models_to_model.stored_dtype(prepared.plan),
                    prepared.config.architectures,
                    adapters[index] if adapters else None,
                    choices[index],
                )
            )
        asked = [
            r["target_step"] if target is None else target
            for r, target in zip(reports, self.targets, strict=True)
        ]
        outputs = {s: self.out / n for s, n in zip(asked, self._names(), strict=True)}
        return Result(self.out, reports[-1], outputs), reports

    def _by_mergekit(self, stage: Staging) -> tuple[Result, list[dict[str, Any]]]:
        from transformers import AutoConfig

        stage.begin(None)
        statistics, parameters, snapshots = through_mergekit.run_relex(
            self.recipe, stage.content, self.options
        )
        if self.options.copy_tokenizer:
            donors = [snapshots[-1].folder, snapshots[0].folder]
            copy_companions(donors, stage.content, tokenizer=not self._makes_tokenizer())
        config = AutoConfig.from_pretrained(
            str(stage.content), trust_remote_code=self.options.trust_remote_code
        )
        report = self._document(
            stage.content,
            None,
            statistics,
            parameters,
            snapshots,
            str(config.dtype).removeprefix("torch."),
            config.architectures,
        )
        return Result(self.out, report, {report["target_step"]: self.out}), [report]

    def _makes_tokenizer(self) -> bool:
        config = self.recipe.config
        return bool(config.tokenizer or config.tokenizer_source or config.chat_template)

    def _names(self) -> list[str]:
        """Folder of each target below OUT."""
        if len(self.targets) == 1:
            return ["."]
        return [f"step-{whole(target)}" for target in self.targets if target is not None]

    def _document(
        self,
        folder: Path,
        target: float | None,
        statistics: SeriesStatistics,
        parameters: dict[str, Parameters],
        snapshots: Sequence[Snapshot],
        dtype: str,
        architectures: Sequence[str],
        adapter: dict[str, Any] | None = None,
        choice: Choice | None = None,
    ) -> dict[str, Any]:
        recipe = self.recipe if target is None else load_recipe(self.recipe, target_step=target)
        report = documents.make_report(statistics, parameters, snapshots, dtype, choice=choice)
        if adapter is not None:
            report["adapter"] = adapter
            where = "" if target is None else f"step {whole(target)}: "
            for remark in output_form.remarks(adapter):
                self.notify(where + remark)
        documents.write_documents(
            folder,
            recipe,
            report,
            statistics,
            base=snapshots[0],
            architectures=architectures,
            name=self.out.name if target is None else f"{self.out.name}-step-{whole(target)}",
            write_card=self.options.write_model_card,
            figure=self.figure,
        )
        return report


@contextlib.contextmanager
def progress_bar(quiet: bool) -> Iterator[Callable[[int], Callable[[int], None]]]:
    """A bar of bytes, rate and time left, once the number of bytes is known."""
    from tqdm import tqdm

    with contextlib.ExitStack() as stack:

        def start(total: int) -> Callable[[int], None]:
            bar = stack.enter_context(
                tqdm(
                    total=total,
                    unit="B",
                    unit_scale=True,
                    desc="reading checkpoints",
                    disable=quiet,
                )
            )
            return lambda nbytes: (bar.update(nbytes), None)[1]

        yield start
