"""What can be told of a call before anything heavy is imported, and all of it at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import click

from relex_merge.errors import RelexError


class FaultsError(RelexError):
    """Several faults of one call that have nothing to do with each other."""

    def __init__(self, faults: Iterable[RelexError]) -> None:
        self.messages = [str(fault) for fault in faults]
        super().__init__("\n".join(self.messages))


def check_all(*checks: Callable[[], object]) -> None:
    """Make every check.

    Raises:
        RelexError: of the check that fails, or a FaultsError where several do.
    """
    faults = []
    for check in checks:
        try:
            check()
        except RelexError as error:
            faults.append(error)
    if len(faults) > 1:
        raise FaultsError(faults)
    for fault in faults:
        raise fault


def check_file(option: str, path: Path | None) -> None:
    """Raise RelexError where an option names something that is not there."""
    if path is not None and not path.exists():
        raise RelexError(f"cannot read {path}: No such file or directory ({option})")


def sign_of_life(quiet: bool) -> None:
    """Say on a terminal that the seconds before the first progress bar are imports."""
    if not quiet and sys.stderr.isatty():
        click.echo("loading mergekit and torch …", err=True)
