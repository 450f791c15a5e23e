"""What ``run`` does about a bad verdict, before anything appears at OUT."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from relex_merge.errors import RefusedError

if TYPE_CHECKING:
    from relex_merge.report.contents import Report

NOTHING = "nothing to extrapolate"


def ask(*, strict: bool, yes: bool) -> Callable[[Report], None]:
    """Return a function that prints a verdict, and asks where something speaks against the model.

    It asks on a terminal, warns with ``yes``, and refuses with ``strict`` or where nobody can be
    asked; only then what was computed is kept for the same command with ``--yes``. It raises
    RefusedError when nothing is to be written.

    Args:
        strict: refuse without asking.
        yes: go on without asking.
    """

    def accept(report: Report) -> None:
        from relex_merge.report.doubts import doubts
        from relex_merge.report.table import chosen

        choice = report.get("choice")
        if choice is not None:
            click.echo(f"chosen predictor: {chosen(choice)}", err=True)
            for reason in choice["reasons"]:
                click.echo(f"  - {reason}", err=True)
        _show(report)
        if report["verdict"]["verdict"] == NOTHING:
            click.echo(
                f"writing step {report['target_step']:g} from within the series, "
                "as the line has it and not the checkpoint itself",
                err=True,
            )
        if report["method"].get("predictor") == "stay":
            click.echo("writing the last observed checkpoint", err=True)
        against = "; ".join(doubts(report))
        if not against:
            return
        if strict:
            raise RefusedError(f"nothing was written: {against}, and --strict was given")
        if yes:
            click.echo(f"WARNING: writing a model although {against}", err=True)
        elif not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise RefusedError(
                f"nothing was written: {against}; give --yes to write it all the same", final=False
            )
        elif not click.confirm(f"{against[0].upper()}{against[1:]}. Write it?", err=True):
            raise RefusedError("nothing was written")

    return accept


def _show(report: Report) -> None:
    """Print the verdict, the evidence that it follows where there are several, and its reasons."""
    verdict = report["verdict"]
    method = report["method"]
    of = "" if method.get("scale", 1) == 1 else f" at scale {method.get('scale'):g}"
    evidence = f" (evidence: {verdict['evidence']})" if "evidence" in verdict else ""
    click.echo(
        f"verdict for step {report['target_step']}{of}: {verdict['verdict']}{evidence}", err=True
    )
    for reason in verdict["reasons"]:
        click.echo(f"  - {reason}", err=True)
