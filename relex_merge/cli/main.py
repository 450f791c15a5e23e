"""The command ``relex-merge``. Each subcommand is imported when it is called, not before."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import click

from relex_merge.cli.secrets import blank, blanked_logs, traceback_of
from relex_merge.errors import RelexError, where_it_happened

# name: (module that defines click command ``command``, one line of help)
_COMMANDS = {
    "run": ("relex_merge.cli.run", "Run a recipe: extrapolate, write, and maybe publish."),
    "recipe": ("relex_merge.cli.recipe", "Write a recipe for a Hub repo or a folder."),
    "inspect": ("relex_merge.cli.inspect", "The trust report, without writing a model."),
    "evaluate": (
        "relex_merge.cli.evaluate",
        "Measure what the candidates of a recipe can do.",
    ),
    "push": ("relex_merge.cli.push", "Publish a finished output as a new Hub revision."),
    "publish-series": (
        "relex_merge.cli.publish_series",
        "Publish a local run: a Hub revision for each checkpoint.",
    ),
    "demo": ("relex_merge.cli.demo", "The whole story on a laptop CPU, offline."),
}


class _Commands(click.Group):
    """A group that knows names and help of its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _ = _COMMANDS[cmd_name]
        command: click.Command = importlib.import_module(module).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _COMMANDS and not args[0].startswith("-"):
            from relex_merge.cli.meant import unknown_command

            ctx.fail(unknown_command(args, _COMMANDS))
        return super().resolve_command(ctx, args)


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="relex-merge", prog_name="relex-merge")
def group() -> None:
    """Extrapolate an RLVR run from its first checkpoints, along its rank-1 weight trajectory."""


TERMINATED = 128 + signal.SIGTERM
"""Exit code after SIGTERM, as shells have it."""


def main(args: list[str] | None = None) -> None:
    """Entry point of the command.

    It exits with 0, with 1 for a fault that the user can act on, 2 for wrong usage, 3 when a bad
    verdict was refused, and 143 after SIGTERM.
    """
    arguments = sys.argv[1:] if args is None else args
    with blanked_logs():
        sys.exit(_run(arguments))


def _run(arguments: list[str]) -> int:
    """Run the command and tell what goes wrong; returns the exit code."""
    struck: list[int] = []  # signals that came
    try:
        with _stoppable(struck):
            code: Any = group.main(arguments, prog_name="relex-merge", standalone_mode=False)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        click.echo(blank(shown.getvalue()), err=True, nl=False)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _leave(_interrupted(struck))
    except RelexError as error:
        _trace(arguments, error)
        for message in getattr(error, "messages", [str(error)]):
            click.echo(f"error: {blank(message)}", err=True)
        return TERMINATED if signal.SIGTERM in struck else error.exit_code
    except Exception as error:
        _trace(arguments, error)
        if struck:  # C code may turn an interruption into an error of its own
            return _interrupted(struck)
        click.echo(f"error: {blank(where_it_happened(error))} (-v shows more)", err=True)
        return 1
    return code or 0


@contextlib.contextmanager
def _stoppable(struck: list[int]) -> Iterator[None]:
    """Raise KeyboardInterrupt at SIGINT and SIGTERM, and note which of them came.

    A second SIGTERM ends the process at once, as ever.
    """

    def stop(number: int, frame: object) -> None:
        struck.append(number)
        if number == signal.SIGTERM:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise KeyboardInterrupt

    before: dict[int, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
    }
    usual = [number for number, handler in before.items() if signal.getsignal(number) == handler]
    if threading.current_thread() is not threading.main_thread():
        usual = []
    for number in usual:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in usual:
            signal.signal(number, before[number])


def _interrupted(struck: list[int]) -> int:
    """Say what ended the command; returns the exit code."""
    terminated = signal.SIGTERM in struck
    what = "terminated" if terminated else "interrupted"
    click.echo(f"{what}; nothing half done is left at OUT", err=True)
    return TERMINATED if terminated else 1


def _leave(code: int) -> NoReturn:
    """Exit now. A download in a thread cannot be stopped, and sys.exit would wait for it."""
    if any(not thread.daemon for thread in threading.enumerate()[1:]):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _trace(arguments: list[str], error: BaseException) -> None:
    """Show the traceback of an error, if ``-v`` was given."""
    if any(a == "--verbose" or (a[:1] == "-" and set(a[1:]) == {"v"}) for a in arguments):
        click.echo(traceback_of(error), err=True)
