"""One run: which path it takes, and what it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from relex_merge.checkpoints.files import REPORT
from relex_merge.engine.plan import NeedsMergekit
from relex_merge.engine.resources import available, check_accelerator
from relex_merge.errors import RelexError
from relex_merge.pipeline import prepare, through_mergekit
from relex_merge.pipeline.automatic import is_open, refuse_auto, refuse_to_stop, settle
from relex_merge.pipeline.companions import copy_companions
from relex_merge.pipeline.finish import TargetOutput, write_documents
from relex_merge.pipeline.grams import form_grams
from relex_merge.pipeline.inspection import load_statistics
from relex_merge.pipeline.output_form import writer_for
from relex_merge.pipeline.progress import progress_bar
from relex_merge.pipeline.sampling import entry_of_output, estimates, plan_sample
from relex_merge.pipeline.writing import Job, Written
from relex_merge.places.address import join
from relex_merge.recipe.load import Recipe, load_recipe
from relex_merge.recipe.variant import Variant
from relex_merge.report.contents import Report, read_report

if TYPE_CHECKING:
    from relex_merge.engine.plan import ModelPlan
    from relex_merge.pipeline.options import RunOptions
    from relex_merge.pipeline.prepare import Prepared
    from relex_merge.pipeline.staging import Staging
    from relex_merge.trajectory.backtests.results import Choice
    from relex_merge.trajectory.parameters import Parameters
    from relex_merge.trajectory.statistics import SeriesStatistics


@dataclass(frozen=True)
class Result:
    """A finished output.

    Attributes:
        out: the folder; of an output in a place, the one that stood for it while it was made.
        report: the content of its relex_report.json (of the last target, where there are several);
            empty for other merge methods, and where no report could be made.
        outputs: target step → folder, several when several targets were asked for; of several
            scales the first.
        variants: what was asked for → folder, every combination of target and scale.
        place: the address of an output in a place, where its files are now; None for a folder.
    """

    out: Path
    report: Report
    outputs: dict[float, Path] = field(default_factory=dict)
    variants: dict[Variant, Path] = field(default_factory=dict)
    place: str | None = None

    @property
    def written(self) -> list[str]:
        """Every model that was written: its folder, or its address."""
        folders = list(self.variants.values()) or [self.out]
        if self.place is None:
            return [str(folder) for folder in folders]
        return [join(self.place, folder.relative_to(self.out).as_posix()) for folder in folders]


@dataclass(frozen=True)
class Run:
    """One call of :func:`relex_merge.extrapolate`, its arguments made concrete.

    Attributes:
        recipe: what is run.
        out: the output on this disk; what stands for it there when it goes to a place.
        options: all else.
        place: the address of an output that is no folder.
    """

    recipe: Recipe
    out: Path
    options: RunOptions
    place: str | None = None

    def into(self, stage: Staging) -> tuple[Result, list[Report]]:
        """Write the whole output into the staging folder; return it with every target's report."""
        check_accelerator(self.options.merge)
        if not self.recipe.is_relex:
            self._refuse_own_options()
            stage.begin(None)
            through_mergekit.run_merge(self.recipe, stage.content, self.options.merge)
            return Result(self.out, _no_report(), place=self.place), []
        try:
            outputs = self._by_engine(stage)
        except NeedsMergekit as reason:
            self._refuse_mergekit(reason)
            self.options.notify(f"using mergekit's own path: the recipe uses {reason}")
            outputs = self._by_mergekit(stage)
        reports = [write_documents(output, self.options) for output in outputs]
        steps = [
            output.target_step if report is None else report["target_step"]
            for report, output in zip(reports, outputs, strict=True)
        ]
        result = self._result(steps, reports[-1] or _no_report())
        return result, [report for report in reports if report]

    def _result(self, steps: Sequence[float | None], report: Report) -> Result:
        """Return the result of all variants; ``steps``: what each was extrapolated to, if known."""
        folders = [self.out / name for name in self._names()]
        variants = dict(zip(self.options.variants, folders, strict=True))
        outputs: dict[float, Path] = {}
        for step, folder, variant in zip(steps, folders, variants, strict=True):
            asked = variant.target_step
            if asked is None or isinstance(asked, str):
                asked = step
            if asked is not None:
                outputs.setdefault(asked, folder)
        return Result(self.out, report, outputs, variants, self.place)

    def command(self) -> list[Any]:
        """Return what was asked for (JSON), the same for the same command."""
        options = self.options
        asked = [
            [v.name for v in options.variants],
            options.form,
            options.lora_rank,
            str(options.merge),
            options.evaluation and options.evaluation.content,
        ]
        if options.sample is not None:
            asked.append(options.sample)
        return [version("relex-merge"), self.recipe.to_yaml(), *asked]

    def ended(self) -> Result:
        """Return the output of an earlier run of the same command, read from OUT."""
        report, steps = _no_report(), []
        for name in self._names():
            report = _no_report()
            with suppress(RelexError):
                report = read_report(self.out / name / REPORT)
            steps.append(report.get("target_step"))
        return self._result(steps, report)

    def _refuse_own_options(self) -> None:
        """Raise RelexError for options that another merge method has no use for."""
        options = self.options
        wrong = {
            "several targets or scales": options.variants != (Variant(),),
            "--as and --lora-rank": options.form is not None or options.lora_rank is not None,
            "--reuse": options.reuse is not None,
            "--gram sample": options.sample is not None,
            "--evaluation": options.evaluation is not None,
        }
        for what in (what for what, given in wrong.items() if given):
            raise RelexError(f"{what}: for merge_method: relex; {self.recipe.name} has another")

    def _refuse_mergekit(self, reason: NeedsMergekit) -> None:
        """Raise RelexError where mergekit's own path cannot do what was asked for."""
        if len(self.options.variants) > 1:
            raise RelexError(
                f"the recipe uses {reason}, which goes through mergekit's own path, one target at "
                "a time; run it once for each target step"
            ) from reason
        if self.options.form == "adapter":
            raise RelexError(f"no adapter can be written: the recipe uses {reason}") from reason
        if self.options.sample is not None:
            raise RelexError(
                f"--gram sample is for plain series, and the recipe uses {reason}; run it without"
            ) from reason
        evaluation = self.options.evaluation
        if evaluation is not None and evaluation.named:
            raise RelexError(
                f"--evaluation is for plain series, and the recipe uses {reason}; run it without"
            ) from reason
        refuse_auto(self.recipe, reason)

    def _by_engine(self, stage: Staging) -> list[TargetOutput]:
        options = self.options
        prepared = prepare.prepare(self.recipe, options.variants, options.merge, options.stream)
        writer = writer_for(prepared, options)
        resources = available(options.merge, options.memory_budget)
        evaluation = None
        if options.evaluation is not None:
            evaluation = options.evaluation.of_series(prepared.fingerprint(), options.notify)
        known = None
        if options.reuse is not None:
            known = load_statistics(options.reuse)
            prepare.check_known(prepared, known)
        folders = [stage.content / name for name in self._names()]
        asked = prepared.plan
        choices: Sequence[Choice | None] = [None] * len(folders)
        sampled = None
        with progress_bar("reading checkpoints", quiet=options.quiet, in_bytes=True) as progress:
            if options.sample is not None:
                sampling = plan_sample(prepared, options.sample, options.notify, by_tensor=True)
                sampled = None if sampling is None else sampling.read(resources, progress)
                known = None if sampled is None else estimates(sampled)
            if is_open(prepared.plan):
                known = known or form_grams(prepared, resources, progress)
                prepared, choices = settle(prepared, known)
                for choice in choices if not options.anyway else ():
                    refuse_to_stop(choice)
            written = writer.write(
                Job(
                    prepared=prepared,
                    options=options,
                    stage=stage,
                    folders=folders,
                    resources=resources,
                    progress=progress,
                    known=known,
                )
            )
        outputs = [
            self._target(i, folder, prepared, asked, written, choices[i])
            for i, folder in enumerate(folders)
        ]
        if sampled is not None:
            outputs = [
                replace(output, sample=entry_of_output(sampled, prepared, i))
                for i, output in enumerate(outputs)
            ]
        return [replace(output, evaluation=evaluation) for output in outputs]

    def _target(
        self,
        index: int,
        folder: Path,
        prepared: Prepared,
        asked: ModelPlan,
        written: Written,
        choice: Choice | None,
    ) -> TargetOutput:
        variant = self.options.variants[index]
        return TargetOutput(
            folder=folder,
            name="-".join(part for part in (self.out.name, variant.name) if part),
            recipe=self.recipe
            if variant == Variant()
            else load_recipe(self.recipe, target_step=variant.target_step, scale=variant.scale),
            statistics=written.statistics,
            asked=_parameters(asked, index, written.statistics),
            settled=_parameters(prepared.plan, index, written.statistics),
            snapshots=prepared.snapshots,
            dtype=prepared.stored_dtype,
            architectures=prepared.config.architectures,
            adapter=written.adapters[index] if written.adapters else None,
            choice=choice,
        )

    def _by_mergekit(self, stage: Staging) -> list[TargetOutput]:
        from transformers import AutoConfig

        merge = self.options.merge
        stage.begin(None)
        statistics, predictors, snapshots = through_mergekit.run_relex(
            self.recipe, stage.content, merge
        )
        if merge.copy_tokenizer:
            donors = [snapshots[-1].folder, snapshots[0].folder]
            copy_companions(donors, stage.content, tokenizer=not self._makes_tokenizer())
        config = AutoConfig.from_pretrained(
            str(stage.content), trust_remote_code=merge.trust_remote_code
        )
        return [
            TargetOutput(
                folder=stage.content,
                name=self.out.name,
                recipe=self.recipe,
                statistics=statistics,
                asked=predictors,
                settled=predictors,
                snapshots=snapshots,
                dtype=str(config.dtype).removeprefix("torch."),
                architectures=config.architectures,
            )
        ]

    def _makes_tokenizer(self) -> bool:
        config = self.recipe.config
        return bool(config.tokenizer or config.tokenizer_source or config.chat_template)

    def _names(self) -> list[str]:
        """Return the folder of each target below OUT."""
        variants = self.options.variants
        return ["."] if len(variants) == 1 else [variant.name for variant in variants]


def _no_report() -> Report:
    """Return what a result has in the place of a report that there is none of."""
    return cast("Report", {})


def _parameters(
    plan: ModelPlan, target: int, statistics: SeriesStatistics
) -> dict[str, Parameters]:
    """Return the parameters of every tensor whose trajectory was seen, for one target."""
    return {
        tensor.name: tensor.parameters[target]
        for tensor in plan.tensors
        if tensor.parameters and tensor.name in statistics.tensors
    }
