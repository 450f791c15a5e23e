"""What ``run`` does about a bad verdict, before anything appears at OUT."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from relex_merge.errors import RelexError

if TYPE_CHECKING:
    from relex_merge.report.contents import Report
    from relex_merge.report.evaluation import Kind

REFUSAL = "do not extrapolate"
NOTHING = "nothing to extrapolate"
WITNESSES: dict[Kind, str] = {
    "geometry": "the backtests speak",
    "function": "its evaluation on text speaks",
    "labels": "its answers to tasks speak",
}


class RefusedError(RelexError):
    """``--strict`` met a bad verdict, or the user said no."""

    exit_code = 3


def ask(*, strict: bool, yes: bool) -> Callable[[Report], None]:
    """Return a function that prints a verdict, and asks, refuses or warns when it is bad.

    It asks on a terminal, refuses with ``strict``, and warns otherwise. It raises RefusedError when
    nothing is to be written.

    Args:
        strict: refuse without asking.
        yes: go on without asking.
    """

    def accept(report: Report) -> None:
        verdict, choice = report["verdict"], report.get("choice")
        if choice is not None:
            from relex_merge.report.table import chosen

            click.echo(f"chosen predictor: {chosen(choice)}", err=True)
            for reason in choice["reasons"]:
                click.echo(f"  - {reason}", err=True)
        _show(report)
        if verdict["verdict"] == NOTHING:
            click.echo(f"writing step {report['target_step']:g} from within the series", err=True)
        if verdict["verdict"] != REFUSAL:
            return
        if strict:
            raise RefusedError("nothing was written: the verdict is bad and --strict was given")
        if report["method"].get("predictor") == "stay":
            click.echo("writing the last observed checkpoint", err=True)
            return
        if yes or not (sys.stdin.isatty() and sys.stderr.isatty()):
            witness = WITNESSES[verdict.get("evidence", "geometry")]
            click.echo(f"WARNING: writing a model that {witness} against", err=True)
        elif not click.confirm("Write the model all the same?", err=True):
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
