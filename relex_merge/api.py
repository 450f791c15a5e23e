"""What the commands do, as functions: :func:`extrapolate`, :func:`inspect`, :func:`forecast`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relex_merge.engine.factors import adapters_of
from relex_merge.engine.plan import NeedsMergekit
from relex_merge.engine.resources import available
from relex_merge.errors import RelexError
from relex_merge.hub.download import progress_bars as hub_bars
from relex_merge.pipeline import dry_run, output_form, prepare
from relex_merge.pipeline.automatic import is_open, refuse_auto
from relex_merge.pipeline.inspection import Inspection, of_output, of_series, with_holdout
from relex_merge.pipeline.run import Notify, Result, Run, progress_bar
from relex_merge.pipeline.staging import check_free, staging
from relex_merge.recipe.load import Recipe, RecipeSource, load_recipe
from relex_merge.report.contents import Report

if TYPE_CHECKING:
    from mergekit.options import MergeOptions


def _say_nothing(message: str) -> None:
    """For callers who do not want remarks."""


def _accept_all(report: Report) -> None:
    """For callers who decide for themselves."""


def extrapolate(
    recipe: RecipeSource,
    out: str | Path,
    *,
    target_step: float | Sequence[float] | None = None,
    force: bool = False,
    options: MergeOptions | None = None,
    memory_budget: int | None = None,
    stream: bool | None = None,
    reuse: str | Path | None = None,
    form: str | None = None,
    lora_rank: int | None = None,
    figure: bool | None = None,
    quiet: bool = False,
    notify: Notify = _say_nothing,
    accept: Callable[[Report], None] = _accept_all,
    anyway: bool = False,
) -> Result:
    """Run a recipe and write the model to ``out``, whole or not at all.

    Args:
        recipe: path of a YAML file, or the YAML structure. Any mergekit recipe; for
            ``merge_method: relex`` through the out-of-core engine.
        out: a folder that does not exist yet, or an empty one.
        target_step: replaces the recipe's; a sequence writes ``out/step-N`` for each, in one pass
            over the checkpoints.
        force: replace a folder that is not empty.
        options: mergekit's options; default ``MergeOptions()``.
        memory_budget: bytes that the engine may allocate; default a quarter of the free memory, at
            most 4 GiB.
        stream: read weights from the Hub in ranges (True), through its cache (False), or in ranges
            when they are not in the cache (None).
        reuse: an earlier output of the same series, or its relex_gram.safetensors: its Gram
            matrices are used instead of being formed again.
        form: "adapter" or "model"; default: what the checkpoints are.
        lora_rank: rank of an adapter; default: that of the series' own adapters, or 32.
        figure: draw the report for the model card; default: when matplotlib is installed.
        quiet: no progress bar.
        notify: called with remarks for the user, such as a fall-back to mergekit's path.
        accept: called with each report before anything appears at ``out``; it may raise.
        anyway: write the last observed checkpoint where ``predictor: auto`` or ``target_step:
            auto`` say to stop there; otherwise that is an error.

    Raises:
        RelexError: whatever is wrong, with the remedy; nothing is left at ``out``.
    """
    from mergekit.options import MergeOptions

    targets = _targets(target_step)
    run = Run(
        load_recipe(recipe, target_step=targets[0]),
        Path(out).resolve(),
        targets if len(targets) > 1 else [None],
        options or MergeOptions(),
        memory_budget,
        stream,
        reuse,
        form,
        lora_rank,
        find_spec("matplotlib") is not None if figure is None else figure,
        quiet,
        notify,
        anyway,
    )
    _spare_sources(run.recipe, run.out)
    with staging(run.out, force) as stage, hub_bars(not quiet):
        result, reports = run.into(stage)
        try:
            for report in reports:
                accept(report)
        except RelexError:
            stage.finished.clear()  # what was refused is not worth keeping
            raise
        stage.publish(force)
    return result


def _spare_sources(recipe: Recipe, out: Path) -> None:
    """Raise RelexError when a model that the recipe reads lies at OUT, or inside it."""
    for reference in recipe.config.referenced_models():
        for part in (reference.model, reference.lora):
            folder = Path(part.path).expanduser() if part else None
            if folder and folder.is_dir() and folder.resolve().is_relative_to(out):
                raise RelexError(f"{out} would replace {folder}, which is read; choose another OUT")


def _targets(target_step: float | Sequence[float] | None) -> list[float | None]:
    if target_step is None:
        return [None]
    if isinstance(target_step, Sequence):
        if len(set(target_step)) != len(target_step) or not target_step:
            raise RelexError(f"target steps {list(target_step)}: give each once, and at least one")
        return list(target_step)
    return [target_step]


def forecast(
    recipe: RecipeSource,
    out: str | Path,
    *,
    target_step: float | Sequence[float] | None = None,
    options: MergeOptions | None = None,
    memory_budget: int | None = None,
    stream: bool | None = None,
    reuse: str | Path | None = None,
    force: bool = False,
    form: str | None = None,
    lora_rank: int | None = None,
    **_: object,
) -> str:
    """What :func:`extrapolate` with the same arguments would read and write, as text.

    No byte of weights is read. Raises RelexError as :func:`extrapolate` would by then.
    """
    from mergekit.options import MergeOptions

    pass
    from relex_merge.pipeline.dry_run import describe

    check_free(Path(out), force)
    targets = _targets(target_step)
    options = options or MergeOptions()
    loaded = load_recipe(recipe, target_step=targets[0])
    if not loaded.is_relex:
        raise RelexError("--dry-run is for merge_method: relex")
    # Without --stream only headers are looked at too: nothing is downloaded for a forecast.
    ahead = None if stream is False else stream
    try:
        prepared = prepare.prepare(loaded, targets if len(targets) > 1 else [None], options, ahead)
    except NeedsMergekit as reason:
        refuse_auto(loaded, reason)
        return f"through mergekit's own path (the recipe uses {reason}): every revision whole"
    resources = available(options, memory_budget)
    known = reuse is not None
    if adapters_of(prepared.plan) or form == "adapter":
        written = output_form.form_of(prepared, form, lora_rank)
        text = dry_run.describe_adapters(prepared, written, resources, Path(out), options)
    else:
        cached = stream is False
        text = describe(prepared, resources, Path(out), options, reused=known, cached=cached)
    if is_open(prepared.plan) and not known:
        text += "\nbefore that, everything is read once more to choose what `auto` leaves open"
    return text


def inspect(source: RecipeSource, **how: Any) -> Report:
    """The trust report of a recipe or a finished output: the ``report`` of :func:`examine`."""
    return examine(source, **how).report


def examine(
    source: RecipeSource,
    *,
    target_step: float | None = None,
    holdout: Sequence[str] = (),
    options: MergeOptions | None = None,
    memory_budget: int | None = None,
    stream: bool | None = None,
    quiet: bool = False,
) -> Inspection:
    """The trust report and the Gram matrices behind it, without writing a model.

    Args:
        source: a recipe as for :func:`extrapolate`, or the folder of a finished output, whose Gram
            matrices are read instead of weights.
        target_step: replaces the recipe's.
        holdout: references (brace ranges too) of checkpoints beyond the observed ones; the true
            error there is reported.
        options, memory_budget, stream, quiet: as for :func:`extrapolate`.

    Raises:
        RelexError: whatever is wrong, with the remedy.
    """
    from mergekit.options import MergeOptions

    if isinstance(source, (str, Path)) and Path(source).is_dir():
        if holdout:
            raise RelexError("--holdout needs the recipe: a finished output has no weights of them")
        return of_output(Path(source), target_step)
    recipe = load_recipe(source, target_step=target_step)
    if not recipe.is_relex:
        raise RelexError(f"inspect is for merge_method: relex; {recipe.name} uses another one")
    recipe = with_holdout(recipe, holdout)
    options = options or MergeOptions()
    try:
        with hub_bars(not quiet):
            prepared = prepare.prepare(recipe, [None], options, stream, holdout=True)
    except NeedsMergekit as reason:
        raise RelexError(
            f"{recipe.name} uses {reason}; inspect reads plain series: a recipe with models: and "
            "a base of the same vocabulary"
        ) from reason
    with progress_bar(quiet) as progress:
        found = output_form.examine(prepared, available(options, memory_budget), progress)
    return of_series(prepared, found)
