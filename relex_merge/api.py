"""What the commands do, as functions: :func:`extrapolate`, :func:`inspect`, :func:`forecast`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, cast

from relex_merge.engine.plan import NeedsMergekit
from relex_merge.engine.resources import available
from relex_merge.errors import RefusedError, RelexError
from relex_merge.evaluation.public import evaluate
from relex_merge.hub.download import progress_bars as hub_bars
from relex_merge.pipeline import dry_run, prepare
from relex_merge.pipeline.automatic import is_open, refuse_auto
from relex_merge.pipeline.given_evaluation import find_evaluation
from relex_merge.pipeline.grams import form_grams
from relex_merge.pipeline.inspection import (
    Inspection,
    of_output,
    of_output_in_place,
    of_series,
    open_series,
)
from relex_merge.pipeline.options import Notify, RunOptions, keep_silent
from relex_merge.pipeline.progress import progress_bar
from relex_merge.pipeline.run import Result, Run
from relex_merge.pipeline.sampling import plan_sample
from relex_merge.pipeline.spare import spare_sources, spare_sources_in_place
from relex_merge.pipeline.staging import Staging, check_free, resolved, staging
from relex_merge.pipeline.staging_in_place import local_out, staging_in_place
from relex_merge.places.address import normal, place_or_path
from relex_merge.places.filesystem import open_place
from relex_merge.places.upload import Destination
from relex_merge.recipe.load import RecipeSource, load_recipe
from relex_merge.recipe.names import TargetStep
from relex_merge.recipe.variant import Variant
from relex_merge.report.contents import Report
from relex_merge.trajectory.sampling.size import EXACT, sample_of_run

if TYPE_CHECKING:
    from mergekit.options import MergeOptions

__all__ = [
    "Inspection",
    "Result",
    "evaluate",
    "examine",
    "extrapolate",
    "forecast",
    "forecast_inspection",
    "inspect",
]


def _accept_all(report: Report) -> None:
    """Accept a report, for callers who decide for themselves."""


def extrapolate(  # noqa: PLR0913  # a public function: each option is a keyword of its own
    recipe: RecipeSource,
    out: str | Path,
    *,
    target_step: TargetStep | Sequence[TargetStep] | None = None,
    scale: float | Sequence[float] | None = None,
    force: bool = False,
    options: MergeOptions | None = None,
    memory_budget: int | None = None,
    stream: bool | None = None,
    reuse: str | Path | None = None,
    gram: str = EXACT,
    evaluation: str | Path | None = None,
    form: str | None = None,
    lora_rank: int | None = None,
    figure: bool | None = None,
    quiet: bool = False,
    notify: Notify = keep_silent,
    accept: Callable[[Report], None] = _accept_all,
    anyway: bool = False,
) -> Result:
    """Run a recipe and write the model to ``out``, whole or not at all.

    Args:
        recipe: path of a YAML file, or the YAML structure. Any mergekit recipe; for
            ``merge_method: relex`` through the out-of-core engine.
        out: a folder that does not exist yet, or an empty one; or an address of such a one, as
            ``s3://bucket/out``.
        target_step: replaces the recipe's, a number or "auto"; a sequence writes ``out/step-N`` for
            each, in one pass over the checkpoints.
        scale: λ, replaces the recipe's; a sequence writes ``out/step-N-scale-λ`` for each
            combination with the targets, in the same pass.
        force: replace a folder that is not empty.
        options: mergekit's options; default ``MergeOptions()``.
        memory_budget: bytes that the engine may allocate; default a quarter of the free memory, at
            most 4 GiB.
        stream: read weights from the Hub and from places in ranges (True), through the cache
            (False), or in ranges when they are not in the cache (None).
        reuse: an earlier output of the same series, or its relex_gram.safetensors: its Gram
            matrices are used instead of being formed again.
        gram: ``exact``, or ``sample`` (``sample:1%``) to compute the weight vectors from a part of
            the numbers: then every checkpoint is read once, whatever the memory, and the report
            says how far the result is from the exact one. By default 0.5 % is sampled.
        evaluation: the file of an evaluation of the same series (``evaluate``'s ``json``), whose
            evidence outranks that of the weights; default: ``recipe.evaluation.json`` beside a
            recipe file ``recipe.yml``, if it is there and fits.
        form: "adapter" or "model"; default: what the checkpoints are.
        lora_rank: rank of an adapter; default: that of the series' own adapters, or 32.
        figure: draw the report for the model card; default: when matplotlib is installed.
        quiet: no progress bar.
        notify: called with remarks for the user, such as a fall-back to mergekit's path.
        accept: called with each report before anything appears at ``out``; it may raise.
        anyway: write the last observed checkpoint where ``predictor: auto`` or ``target_step:
            auto`` say to stop there; otherwise that is an error.

    Returns:
        Where the output is, and its report.

    Raises:
        RelexError: whatever is wrong, with the remedy; nothing is left at ``out``.
    """
    variants = _variants(target_step, scale)
    first = variants[0]
    loaded = load_recipe(recipe, target_step=first.target_step, scale=first.scale)
    named = None if evaluation is None else Path(evaluation)
    merge = options or _default_options()
    place = _address(out)
    run = Run(
        loaded,
        local_out(place, merge.transformers_cache) if place else resolved(out),
        RunOptions(
            merge=merge,
            variants=variants if len(variants) > 1 else (Variant(),),
            memory_budget=memory_budget,
            stream=stream,
            evaluation=find_evaluation(named, loaded, notify),
            reuse=None if reuse is None else Path(reuse),
            sample=sample_of_run(gram, reuse),
            form=form,
            lora_rank=lora_rank,
            figure=find_spec("matplotlib") is not None if figure is None else figure,
            quiet=quiet,
            anyway=anyway,
            notify=notify,
        ),
        place,
    )
    if place:
        spare_sources_in_place(run.recipe, place)
    spare_sources(run.recipe, run.out)
    with _staging(run, force) as stage, hub_bars(not quiet):
        if stage.ended:
            notify(f"{run.out} was finished by an earlier run of this command, stopped at its end")
            return run.ended()
        result, reports = run.into(stage)
        try:
            for report in reports:
                accept(report)
        except RelexError as error:
            if not isinstance(error, RefusedError) or error.final:
                stage.forget()  # what was refused is not worth keeping
            raise
        stage.publish(force)
    return result


def _address(out: str | Path) -> str | None:
    """Return the address of an output in a place, None for a folder."""
    given = place_or_path(out)
    return normal(given) if isinstance(given, str) else None


def _staging(run: Run, force: bool) -> AbstractContextManager[Staging]:
    """Return the staging folder of a run, for an OUT on this disk or in a place."""
    command, notify = [run.command(), force], run.options.notify
    if run.place is None:
        return staging(run.out, force, command=command, notify=notify)
    return staging_in_place(
        run.place, run.out, force, command=command, notify=notify, quiet=run.options.quiet
    )


def _default_options() -> MergeOptions:
    from mergekit.options import MergeOptions

    return MergeOptions()


def _variants(
    target_step: TargetStep | Sequence[TargetStep] | None, scale: float | Sequence[float] | None
) -> tuple[Variant, ...]:
    """Return every combination of the targets and scales that were given."""
    targets = _several("target steps", target_step)
    scales = cast("tuple[float | None, ...]", _several("scales", scale))
    return tuple(Variant(step, factor) for step in targets for factor in scales)


def _several(
    what: str, given: TargetStep | Sequence[TargetStep] | None
) -> tuple[TargetStep | None, ...]:
    if given is None or isinstance(given, (str, float, int)):
        return (given,)
    if "auto" in given and len(given) > 1:
        raise RelexError(f"{what}: auto chooses one, so give it alone")
    if len(set(given)) != len(given) or not given:
        raise RelexError(f"{what} {list(given)}: give each once, and at least one")
    return tuple(given)


def forecast(  # noqa: PLR0913  # as extrapolate
    recipe: RecipeSource,
    out: str | Path,
    *,
    target_step: TargetStep | Sequence[TargetStep] | None = None,
    scale: float | Sequence[float] | None = None,
    force: bool = False,
    options: MergeOptions | None = None,
    memory_budget: int | None = None,
    stream: bool | None = None,
    reuse: str | Path | None = None,
    gram: str = EXACT,
    form: str | None = None,
    lora_rank: int | None = None,
) -> str:
    """Return what :func:`extrapolate` would read and write, as text; no weights are read.

    Args:
        recipe: as for :func:`extrapolate`, like all that follow.
        out: the folder.
        target_step: replaces the recipe's.
        scale: replaces the recipe's.
        force: whether a folder that is not empty may be replaced.
        options: mergekit's options.
        memory_budget: bytes that the engine may allocate.
        stream: whether weights on the Hub are read in ranges.
        reuse: an earlier output whose Gram matrices are used.
        gram: whether they are formed exactly or from a sample.
        form: "adapter" or "model".
        lora_rank: rank of an adapter.

    Raises:
        RelexError: as :func:`extrapolate` would before it reads weights.
    """
    place = _address(out)
    if place:
        Destination(open_place(place)).check_free(force)
    else:
        check_free(resolved(out), force)
    variants = _variants(target_step, scale)
    first = variants[0]
    loaded = load_recipe(recipe, target_step=first.target_step, scale=first.scale)
    if not loaded.is_relex:
        raise RelexError("--dry-run is for merge_method: relex")
    asked = RunOptions(
        merge=options or _default_options(),
        variants=variants if len(variants) > 1 else (Variant(),),
        stream=stream,
        reuse=None if reuse is None else Path(reuse),
        sample=sample_of_run(gram, reuse),
        form=form,
        lora_rank=lora_rank,
    )
    # Without --stream only headers are looked at too: nothing is downloaded for a forecast.
    ahead = None if stream is False else stream
    try:
        prepared = prepare.prepare(loaded, asked.variants, asked.merge, ahead)
    except NeedsMergekit as reason:
        refuse_auto(loaded, reason)
        return f"through mergekit's own path (the recipe uses {reason}): every revision whole"
    text = dry_run.describe(prepared, asked, available(asked.merge, memory_budget), out)
    if is_open(prepared.plan) and reuse is None:
        text += "\nbefore that, everything is read once more to choose what `auto` leaves open"
    return text


def inspect(  # noqa: PLR0913  # as extrapolate
    source: RecipeSource,
    *,
    target_step: TargetStep | None = None,
    holdout: Sequence[str] = (),
    options: MergeOptions | None = None,
    memory_budget: int | None = None,
    stream: bool | None = None,
    sample: str | None = None,
    quiet: bool = False,
    notify: Notify = keep_silent,
) -> Report:
    """Return the trust report of a recipe or of a finished output, without writing a model.

    Args:
        source: a recipe as for :func:`extrapolate`, or the folder (or address) of a finished
            output, whose Gram matrices are read instead of weights.
        target_step: replaces the recipe's.
        holdout: references (brace ranges too) of checkpoints beyond the observed ones; the true
            error there is reported.
        options: mergekit's options.
        memory_budget: bytes that the engine may allocate.
        stream: whether weights on the Hub are read in ranges.
        sample: how many of the numbers are read: a share (``0.5%``), a count (``64M``), ``auto``
            (goes on until the verdict is clear, up to 5 %; ``auto:2%`` up to 2 %), or ``all``. By
            default all, but 0.5 % of a series of more than 1 GiB that is on the Hub and not in the
            cache.
        quiet: no progress bar.
        notify: called with remarks for the user.

    Raises:
        RelexError: whatever is wrong, with the remedy.
    """
    return examine(
        source,
        target_step=target_step,
        holdout=holdout,
        options=options,
        memory_budget=memory_budget,
        stream=stream,
        sample=sample,
        quiet=quiet,
        notify=notify,
    ).report


def examine(  # noqa: PLR0913  # as extrapolate
    source: RecipeSource,
    *,
    target_step: TargetStep | None = None,
    holdout: Sequence[str] = (),
    options: MergeOptions | None = None,
    memory_budget: int | None = None,
    stream: bool | None = None,
    sample: str | None = None,
    quiet: bool = False,
    notify: Notify = keep_silent,
) -> Inspection:
    """Return the trust report and the Gram matrices behind it; arguments as for :func:`inspect`.

    Raises:
        RelexError: whatever is wrong, with the remedy.
    """
    if isinstance(source, (str, Path)):
        given = place_or_path(source)
        finished = isinstance(given, str) or given.is_dir()
        if finished and holdout:
            raise RelexError("--holdout needs the recipe: a finished output has no weights of them")
        if finished and sample is not None:
            raise RelexError(
                f"{source} is a finished output: its Gram matrices are read, and no weights; leave "
                "--sample out, or inspect the recipe"
            )
        if isinstance(given, str):
            return of_output_in_place(given, target_step)
        if finished:
            return of_output(given, target_step)
    options = options or _default_options()
    prepared = open_series(source, target_step, holdout, options, stream, quiet=quiet)
    sampling = plan_sample(prepared, sample, notify)
    resources = available(options, memory_budget)
    with progress_bar("reading checkpoints", quiet=quiet, in_bytes=True) as progress:
        if sampling is not None:
            return sampling.inspect(resources, progress, notify)
        found = form_grams(prepared, resources, progress)
    return of_series(prepared, found)


def forecast_inspection(
    source: RecipeSource,
    *,
    target_step: TargetStep | None = None,
    holdout: Sequence[str] = (),
    options: MergeOptions | None = None,
    stream: bool | None = None,
    sample: str | None = None,
    notify: Notify = keep_silent,
) -> str:
    """Return what :func:`inspect` would read, as text; no weights are read.

    Arguments are those of :func:`inspect`.

    Raises:
        RelexError: as :func:`inspect` would before it reads weights.
    """
    if isinstance(source, (str, Path)):
        given = place_or_path(source)
        if isinstance(given, str) or given.is_dir():
            return f"{source} is a finished output: its Gram matrices are read, and no weights"
    options = options or _default_options()
    # Without --stream only headers are looked at too: nothing is downloaded for a forecast.
    ahead = None if stream is False else stream
    prepared = open_series(source, target_step, holdout, options, ahead, quiet=True)
    sampling = plan_sample(prepared, sample, notify)
    return dry_run.describe_reading(prepared) if sampling is None else sampling.describe()
