"""``relex-merge inspect``: the trust report, without writing a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from mergekit.options import PrettyPrintHelp, add_merge_options

from relex_merge.cli.options import SIZE

if TYPE_CHECKING:
    from mergekit.options import MergeOptions

    from relex_merge.pipeline.inspection import Inspection

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("inspect", cls=PrettyPrintHelp)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--json", "json_file", type=FILE, help="Write the whole report.")
@click.option("--plot", type=FILE, help="Draw it: a .png, .svg or .pdf.")
@click.option("--gram", type=FILE, help="Write the Gram matrices, for run --reuse FILE.")
@click.option("--html", type=FILE, help="Write one self-contained page.")
@click.option("--coefficients", type=FILE, help="Coefficients against step: a .csv, or a plot.")
@click.option(
    "--tensor", "tensors", multiple=True, help="For --coefficients; default all in a .csv."
)
@click.option("--rank", type=click.IntRange(1), default=1, help="Directions in --coefficients.")
@click.option("--target-step", type=float, help="Replaces the recipe's.")
@click.option(
    "--holdout",
    metavar="REF",
    multiple=True,
    help="Later checkpoints at which the true error is shown; brace ranges too.",
)
@click.option("--memory-budget", type=SIZE, help="Bytes the engine may use, for example 2G.")
@click.option("--stream/--no-stream", default=None, help="As for run.")
@add_merge_options  # type: ignore[untyped-decorator]  # mergekit ships no types
def command(
    recipe: Path,
    json_file: Path | None,
    plot: Path | None,
    gram: Path | None,
    html: Path | None,
    coefficients: Path | None,
    tensors: tuple[str, ...],
    rank: int,
    target_step: float | None,
    holdout: tuple[str, ...],
    memory_budget: int | None,
    stream: bool | None,
    merge_options: MergeOptions,
) -> None:
    """Say how far the trajectory of RECIPE can be trusted.

    RECIPE is a recipe file, or the folder of a finished output: then no weights are read.
    """
    from relex_merge.api import examine
    from relex_merge.report import render_table, save_html, save_plot
    from relex_merge.report.contents import to_json
    from relex_merge.report.style import check_format

    for file in (json_file, plot, gram, html, coefficients):
        if file and not file.parent.is_dir():
            raise click.UsageError(f"{file}: there is no folder {file.parent}")
    drawn = coefficients if coefficients and coefficients.suffix != ".csv" else None
    if drawn and not tensors:
        raise click.UsageError("a plot of coefficients needs --tensor NAME, once for each panel")
    for file in (plot, html and html.with_suffix(".svg"), drawn):
        if file:
            check_format(file)  # now, not after all weights were read
    merge_options.apply_global_options()
    found = examine(
        recipe,
        target_step=target_step,
        holdout=holdout,
        options=merge_options,
        memory_budget=memory_budget,
        stream=stream,
        quiet=merge_options.quiet,
    )
    click.echo(render_table(found.report))
    if json_file:
        json_file.write_text(to_json(found.report), encoding="utf-8")
    if plot:
        save_plot(found.report, found.observed, plot)
    if gram:
        found.everything.save(gram)
    if html:
        save_html(found.report, found.observed, html)
    if coefficients:
        _save_coefficients(found, coefficients, tensors, rank)


def _save_coefficients(found: Inspection, file: Path, tensors: tuple[str, ...], rank: int) -> None:
    from relex_merge.report import coefficients_csv, save_coefficients_plot

    fitted = len(found.observed.steps)
    if file.suffix == ".csv":
        text = coefficients_csv(found.everything, tensors or None, fitted=fitted, rank=rank)
        file.write_text(text, encoding="utf-8")
        return
    save_coefficients_plot(found.everything, tensors, file, fitted=fitted, rank=rank)
