"""``relex-merge recipe``: look at a repo or a folder, find its checkpoints, write a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import click

from relex_merge.checkpoints import find


@click.command("recipe")
@click.argument("series")
@click.option("--base", metavar="MODEL", help="What the run started from  [default: looked up]")
@click.option("--target-step", type=float, help="Default: the end of the run.")
@click.option("--observe", metavar="STEPS", help="1-75, 1-75:5, 1,5,10 or 15%  [default: all]")
@click.option("--pattern", metavar="REGEX", help="Finds the step in names: its first group.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the recipe there  [default: standard output]",
)
@click.option("--force", is_flag=True, help="Replace FILE.")
@click.option("--json", "as_json", is_flag=True, help="Everything found, as JSON.")
@click.option("--quiet", is_flag=True, help="No table and no progress bar.")
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of an error.")
def command(  # noqa: PLR0913, PLR0917  # click hands over each option as a keyword
    series: str,
    base: str | None,
    target_step: float | None,
    observe: str | None,
    pattern: str | None,
    output: Path | None,
    force: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Write a recipe for SERIES.

    SERIES is a Hub repo (owner/name), one revision of it (owner/name@main), or a folder of
    checkpoints, on this disk or in an object store (s3://bucket/run).
    """
    from relex_merge.cli import series_table
    from relex_merge.errors import RelexError, disk_errors
    from relex_merge.hub.download import progress_bars
    from relex_merge.pipeline.progress import progress_bar
    from relex_merge.recipe.draft import draft

    if output and not output.parent.is_dir():
        raise click.UsageError(f"{output}: there is no folder {output.parent}")
    if output:
        with disk_errors(output):
            if output.exists() and not force:
                raise RelexError(f"{output} exists; give another FILE, or --force to replace it")
    hidden = quiet or as_json
    with (
        progress_bars(False),
        progress_bar("looking into checkpoints", quiet=hidden, delay=2) as progress,
    ):
        found = draft(
            find.find(series, pattern),
            base=base,
            target_step=target_step,
            observe=observe,
            progress=progress,
        )
    if output:
        with disk_errors(output):
            output.write_text(found.text, encoding="utf-8")
    if as_json:
        known = series_table.as_json(
            found.series, found.chosen, found.base, found.target_step, found.text
        )
        click.echo(json.dumps(known, indent=1))
        return
    if not quiet:
        click.echo(series_table.render(found.series, found.chosen, found.base) + "\n", err=True)
    click.echo(f"wrote {output}" if output else found.text.rstrip())
