"""``relex-merge inspect``: the trust report, without writing a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from mergekit.options import PrettyPrintHelp

from relex_merge.cli.options import PLACE_OR_PATH, SIZE, apply_globally, merging_options

if TYPE_CHECKING:
    from mergekit.options import MergeOptions

    from relex_merge.pipeline.inspection import Inspection

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("inspect", cls=PrettyPrintHelp)
@click.argument("recipe", type=PLACE_OR_PATH)
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
@merging_options
def command(
    recipe: Path | str,
    target_step: float | None,
    holdout: tuple[str, ...],
    memory_budget: int | None,
    stream: bool | None,
    merge_options: MergeOptions,
    **files: Any,
) -> None:
    """Say how far the trajectory of RECIPE can be trusted.

    RECIPE is a recipe file, or the folder of a finished output (or its address in an object store):
    then no weights are read.
    """
    from relex_merge.api import examine
    from relex_merge.report import render_table

    wanted = _Files(**files)
    wanted.check()
    apply_globally(merge_options)
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
    wanted.save(found)


@dataclass(frozen=True, kw_only=True)
class _Files:
    """What is to be written besides the table; see the help texts of the options.

    Attributes:
        tensors: whose coefficients are written.
        rank: directions whose coefficients are written.
    """

    json_file: Path | None
    plot: Path | None
    gram: Path | None
    html: Path | None
    coefficients: Path | None
    tensors: tuple[str, ...]
    rank: int

    def check(self) -> None:
        """Raise now what would fail only after all weights were read."""
        from relex_merge.report.style import check_format

        for file in (self.json_file, self.plot, self.gram, self.html, self.coefficients):
            if file and not file.parent.is_dir():
                raise click.UsageError(f"{file}: there is no folder {file.parent}")
        for file in self._drawings():
            check_format(file)

    def _drawings(self) -> Iterator[Path]:
        if self.plot:
            yield self.plot
        if self.html:
            yield self.html.with_suffix(".svg")
        if self.coefficients and self.coefficients.suffix != ".csv":
            if not self.tensors:
                raise click.UsageError(
                    "a plot of coefficients needs --tensor NAME, once for each panel"
                )
            yield self.coefficients

    def save(self, found: Inspection) -> None:
        """Write every file that is wanted. Raises RelexError for one that cannot be written."""
        from relex_merge.errors import disk_errors
        from relex_merge.report import save_html, save_plot
        from relex_merge.report.contents import to_json

        if self.json_file:
            with disk_errors(self.json_file):
                self.json_file.write_text(to_json(found.report), encoding="utf-8")
        if self.plot:
            with disk_errors(self.plot):
                save_plot(found.report, found.observed, self.plot)
        if self.gram:
            with disk_errors(self.gram):
                found.everything.save(self.gram)
        if self.html:
            with disk_errors(self.html):
                save_html(found.report, found.observed, self.html)
        if self.coefficients:
            with disk_errors(self.coefficients):
                self._save_coefficients(found, self.coefficients)

    def _save_coefficients(self, found: Inspection, file: Path) -> None:
        from relex_merge.report import coefficients_csv, save_coefficients_plot

        fitted = len(found.observed.steps)
        if file.suffix == ".csv":
            text = coefficients_csv(
                found.everything, self.tensors or None, fitted=fitted, rank=self.rank
            )
            file.write_text(text, encoding="utf-8")
            return
        save_coefficients_plot(found.everything, self.tensors, file, fitted=fitted, rank=self.rank)
