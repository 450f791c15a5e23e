"""``relex-merge run``: any mergekit recipe; relex recipes through the out-of-core engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

from relex_merge.cli.ahead import check_all, check_file, sign_of_life
from relex_merge.cli.confirm import ask
from relex_merge.cli.meant import check_order
from relex_merge.cli.merge_options import AskedOptions, merging_options
from relex_merge.cli.options import (
    PLACE_OR_PATH,
    SIZE,
    TARGET_STEP,
    Merging,
    publishing_options,
)
from relex_merge.errors import RefusedError
from relex_merge.formatting import size

if TYPE_CHECKING:
    from relex_merge.recipe.names import TargetStep


class _Run(Merging):
    about: ClassVar[Mapping[str, str]] = {
        "RECIPE": "mergekit YAML; with merge_method: relex it goes through the out-of-core engine.",
        "OUT": "A folder that does not exist yet, or is empty; or its address in an object store.",
    }


@click.command("run", cls=_Run)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("out", type=PLACE_OR_PATH)
@click.option(
    "--target-step",
    "target_steps",
    type=TARGET_STEP,
    multiple=True,
    help="Replaces the recipe's; repeat it for several models in OUT/step-N, in one pass.",
)
@click.option(
    "--scale",
    "scales",
    type=float,
    multiple=True,
    help="λ, replaces the recipe's; repeat it for all combinations in OUT/step-N-scale-λ.",
)
@click.option("--force", is_flag=True, help="Replace OUT, and with --push-to the revision.")
@click.option("--memory-budget", type=SIZE, help="Bytes the engine may use, for example 2G.")
@click.option(
    "--stream/--no-stream",
    default=None,
    help="Read weights on the Hub or in a store in ranges, or through the cache  [default: ranges "
    "when not cached]",
)
@click.option(
    "--reuse",
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="An earlier output of the same series, for another target, rank or predictor: reads once.",
)
@click.option(
    "--gram",
    metavar="MODE",
    default="exact",
    help="exact, or sample (sample:1%): weight vectors from a part of the numbers, then one pass "
    "over the checkpoints; the error is estimated  [default: exact]",
)
@click.option(
    "--evaluation",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What `evaluate` measured; the verdict follows it  [default: RECIPE's own, beside it]",
)
@click.option(
    "--as",
    "form",
    type=click.Choice(["adapter", "model"]),
    help="Write a LoRA adapter or a full model  [default: what the checkpoints are]",
)
@click.option(
    "--lora-rank",
    type=click.IntRange(min=1),
    help="Rank of the adapter  [default: the series' own, or 32 from full checkpoints]",
)
@click.option(
    "--figure/--no-figure",
    default=None,
    help="Draw the report for the card  [default: when matplotlib is installed]",
)
@click.option(
    "--strict", is_flag=True, help="Exit with 3, without asking, when something speaks against it."
)
@click.option(
    "--yes",
    is_flag=True,
    help="Write all the same; without a terminal to ask on, `run` exits with 3 otherwise.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be read and written, and stop.")
@click.option("--push-to", metavar="REPO", help="Publish the finished output to this Hub repo.")
@publishing_options
@merging_options
def command(
    recipe: Path,
    out: Path | str,
    strict: bool,
    yes: bool,
    dry_run: bool,
    push_to: str | None,
    asked: AskedOptions,
    **options: Any,
) -> None:
    """Run RECIPE (mergekit YAML) and write the model to OUT.

    OUT is a folder, or a place in an object store (s3://bucket/out). It appears complete or not at
    all. For merge_method: relex the model is the one that the run would have reached at
    target_step.
    """
    target_steps, scales = options.pop("target_steps"), options.pop("scales")
    publishing = {name: options.pop(name) for name in ("revision", "private", "create_pr")}
    if push_to and (len(target_steps) > 1 or len(scales) > 1):
        raise click.UsageError("--push-to takes one model; push OUT/step-N one by one instead")
    if push_to and isinstance(out, str):
        raise click.UsageError(f"--push-to publishes a folder, and {out} is none; give OUT here")
    if any(publishing.values()) and not push_to:
        raise click.UsageError("--revision, --private and --create-pr are for --push-to REPO")
    if publishing["revision"] and publishing["create_pr"]:
        raise click.UsageError("a pull request goes to main: give either --create-pr or --revision")
    target = target_steps[0] if target_steps else None
    _check_ahead(recipe, out, target, scales, options)
    if push_to and not dry_run:  # better now than after the run
        _check_push(recipe, push_to, target, force=options["force"], **publishing)
    _check_hub(recipe, target)
    sign_of_life(asked.quiet)
    from relex_merge.api import extrapolate, forecast

    options |= {
        "target_step": target_steps or None,
        "scale": scales or None,
        "options": asked.made(),
    }
    if dry_run:
        del options["figure"], options["evaluation"]  # no part of what is read
        click.echo(forecast(recipe, out, **options))
        return
    result = extrapolate(
        recipe,
        out,
        quiet=asked.quiet,
        notify=lambda message: click.echo(message, err=True),
        accept=ask(strict=strict, yes=yes),
        anyway=yes,
        **options,
    )
    for written in result.written:
        click.echo(f"wrote {written}")
    if strict and result.outputs and not result.report:
        raise RefusedError("the model is written, but there is no verdict, and --strict was given")
    adapter = result.report.get("adapter")
    if adapter and len(result.variants) == 1:
        click.echo(
            f"an adapter of rank {adapter['rank']} on {len(adapter['modules'])} modules, "
            f"{size(adapter['bytes'])}, with {1 - adapter['discarded']:.2%} of the update's "
            "energy"
        )
    if push_to and isinstance(out, Path):
        from relex_merge.cli.push import publish

        publish(out, push_to, force=options["force"], quiet=asked.quiet, **publishing)


def _check_ahead(
    recipe: Path,
    out: Path | str,
    target: TargetStep | None,
    scales: Sequence[float],
    options: Mapping[str, Any],
) -> None:
    """Tell all that is wrong with a call and takes neither weights nor mergekit to see."""
    from relex_merge.recipe.ahead import check_ahead

    if isinstance(out, Path):
        check_order(recipe, out)
    check_all(
        partial(check_ahead, recipe, target_step=target, scale=scales[0] if scales else None),
        partial(_check_out, out, options["force"]),
        partial(check_file, "--reuse", options["reuse"]),
        partial(check_file, "--evaluation", options["evaluation"]),
    )


def _check_push(
    recipe: Path, repo: str, target: TargetStep | None, *, revision: str | None, **how: Any
) -> None:
    """Raise what would refuse the push: of the call itself, or of the Hub, which is asked."""
    from relex_merge.publishing.push import check_target
    from relex_merge.recipe.load import read_settings
    from relex_merge.recipe.names import METHOD
    from relex_merge.recipe.schema import as_number

    settings = read_settings(recipe, target_step=target)
    if settings["merge_method"] != METHOD and not (revision or how["create_pr"]):
        raise click.UsageError("--push-to needs --revision for other merge methods than relex")
    step = as_number((settings.get("parameters") or {}).get("target_step"))
    check_target(repo, target_step=step, revision=revision, **how)


def _check_hub(recipe: Path, target: TargetStep | None) -> None:
    """Raise RelexError where the Hub is needed and does not answer."""
    from relex_merge.recipe.ahead import check_hub

    check_hub(recipe, target_step=target)


def _check_out(out: Path | str, force: bool) -> None:
    """Check OUT on this disk; a place is asked when the run begins."""
    from relex_merge.pipeline.staging import check_free_ahead, resolved

    if isinstance(out, Path):
        check_free_ahead(resolved(out), force)
