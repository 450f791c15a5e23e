"""``relex-merge push``: publish a finished output as a new revision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from relex_merge.cli.meant import check_folder_first
from relex_merge.cli.options import publishing_options


@click.command("push")
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("repo")
@click.option("--force", is_flag=True, help="Replace the revision if it exists.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of an error.")
@click.option("--card", is_flag=True, help="Replace main's card by a list of the revisions.")
@publishing_options
def command(out: Path, repo: str, force: bool, quiet: bool, verbose: bool, **how: Any) -> None:
    """Publish OUT, a finished output, to the Hub repo REPO: one commit, a revision of its own."""
    check_folder_first("push", out, repo)
    publish(out, repo, force=force, quiet=quiet, **how)


def publish(out: Path, repo: str, **how: Any) -> None:
    """Push, and say where the output is and how to load it."""
    from relex_merge.publishing.push import push

    result = push(out, repo, **how)
    click.echo(f"published {result.url}\n\n{result.snippet}")
    for note in result.notes:
        click.echo(note, err=True)
