"""``relex-merge publish-series``: the checkpoints of a run as revisions of one Hub repo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from relex_merge.cli.meant import check_folder_first
from relex_merge.cli.options import PLACE_OR_PATH


@click.command("publish-series")
@click.argument("folder", type=PLACE_OR_PATH)
@click.argument("repo")
@click.option(
    "--revision-format",
    metavar="NAME",
    default="step_{step}",
    show_default=True,
    help="Name of a step's revision; {step:06d} for zeros in front.",
)
@click.option("--observe", metavar="STEPS", help="Only these: 1-75, 1-75:5, 1,5,10 or 15%.")
@click.option("--pattern", metavar="REGEX", help="On the folders' paths; first group = step.")
@click.option("--base", metavar="MODEL", help="What the run started from, for the card.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Of the published weights; by default as they are stored.",
)
@click.option("--private", is_flag=True, help="Make the repo private if it is created.")
@click.option("--watch", is_flag=True, help="Go on while a training run writes; Ctrl-C ends it.")
@click.option("--until-step", type=int, metavar="N", help="With --watch: end after this step.")
@click.option(
    "--settle",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="With --watch: seconds without a change before a checkpoint counts as written.",
)
@click.option("--quiet", is_flag=True, help="No progress bars and no remarks.")
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of an error.")
def command(folder: Path | str, repo: str, quiet: bool, verbose: bool, **how: Any) -> None:
    """Publish every checkpoint below FOLDER to the Hub repo REPO, each as a revision of its own.

    FOLDER may be a place in an object store (s3://bucket/run). Weights, configuration and
    tokenizer only; FSDP and DCP shards become safetensors. Repeat it after an interruption: what is
    complete is skipped.
    """
    check_folder_first("publish-series", folder, repo)
    from relex_merge.publishing.publish_series import publish_series

    def remark(message: str) -> None:
        if not quiet:
            click.echo(message, err=True)

    result = publish_series(folder, repo, quiet=quiet, notify=remark, **how)
    for step, reason in result.waiting.items():
        click.echo(f"step {step} was not published: {reason}", err=True)
    click.echo(
        f"{result.url}: {len(result.published)} published, {len(result.before)} complete before"
    )
