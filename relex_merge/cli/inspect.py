"""``relex-merge inspect``: the trust report, without writing a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

from relex_merge.cli.ahead import check_all, sign_of_life
from relex_merge.cli.merge_options import AskedOptions, merging_options
from relex_merge.cli.options import PLACE_OR_PATH, SIZE, TARGET_STEP, Merging

if TYPE_CHECKING:
    from relex_merge.pipeline.inspection import Inspection
    from relex_merge.recipe.names import TargetStep

FILE = click.Path(dir_okay=False, path_type=Path)


class _Inspect(Merging):
    writes = False
    about: ClassVar[Mapping[str, str]] = {
        "RECIPE": "mergekit YAML with merge_method: relex, or the folder of a finished output (or "
        "its address in an object store)."
    }


@click.command("inspect", cls=_Inspect)
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
@click.option("--target-step", type=TARGET_STEP, help="Replaces the recipe's.")
@click.option(
    "--holdout",
    metavar="REF",
    multiple=True,
    help="Later checkpoints at which the true error is shown; brace ranges too.",
)
@click.option("--memory-budget", type=SIZE, help="Bytes the engine may use, for example 2G.")
@click.option("--stream/--no-stream", default=None, help="As for run.")
@click.option(
    "--sample",
    metavar="SIZE",
    help="Read a share (0.5%), some numbers (64M), auto (until the verdict is clear, up to 5 % or "
    "auto:2%) or all  [default: all; 0.5% of large series on the Hub that are not cached]",
)
@click.option("--dry-run", is_flag=True, help="Say what would be read, and stop.")
@merging_options
def command(
    recipe: Path | str,
    target_step: TargetStep | None,
    holdout: tuple[str, ...],
    memory_budget: int | None,
    stream: bool | None,
    sample: str | None,
    dry_run: bool,
    asked: AskedOptions,
    **files: Any,
) -> None:
    """Say how far the trajectory of RECIPE can be trusted.

    RECIPE is a recipe file, or the folder of a finished output (or its address in an object store):
    then no weights are read.
    """
    from relex_merge.recipe.advice import check_output
    from relex_merge.recipe.ahead import check_ahead, check_hub

    wanted = _Files(**files)
    sized = partial(_check_sample, sample, wanted.gram)
    finished = isinstance(recipe, str) or recipe.is_dir()
    if isinstance(recipe, str):  # an output in a place
        check_all(wanted.check, sized)
    elif finished:
        check_all(partial(check_output, recipe), wanted.check, sized)
    else:
        check_all(partial(check_ahead, recipe, target_step=target_step), wanted.check, sized)
        check_hub(recipe, target_step=target_step)
    sign_of_life(asked.quiet)
    from relex_merge.api import examine, forecast_inspection
    from relex_merge.report import print_report

    options = asked.made()
    if wanted.gram and not finished:
        sample = "all"  # what run --reuse takes is exact
    notify = partial(click.echo, err=True)
    if dry_run:
        click.echo(
            forecast_inspection(
                recipe,
                target_step=target_step,
                holdout=holdout,
                options=options,
                stream=stream,
                sample=sample,
                notify=notify,
            )
        )
        return
    found = examine(
        recipe,
        target_step=target_step,
        holdout=holdout,
        options=options,
        memory_budget=memory_budget,
        stream=stream,
        sample=sample,
        quiet=asked.quiet,
        notify=notify,
    )
    print_report(found.report)
    wanted.save(found)


def _check_sample(sample: str | None, gram: Path | None) -> None:
    """Raise RelexError for a ``--sample`` that is no size, or that ``--gram`` does not go with."""
    from relex_merge.errors import RelexError
    from relex_merge.trajectory.sampling.size import read_sample_size

    if sample is not None and read_sample_size(sample) is not None and gram is not None:
        raise RelexError(
            "--gram writes exact Gram matrices for run --reuse, and --sample estimates them; leave "
            "one of them out"
        )


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

        if self.rank > 1 and not self.coefficients:
            raise click.UsageError(
                "--rank counts the directions in --coefficients FILE; the rank of the prediction "
                f"stands in the recipe. Write there:\n\n  parameters:\n    rank: {self.rank}"
            )
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
