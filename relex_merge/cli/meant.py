"""What was probably meant by a call that is wrong, and what to type instead."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import click

from relex_merge.checkpoints.locate import is_local_file, local_folder
from relex_merge.places.address import is_place
from relex_merge.recipe.advice import SUFFIXES, write_one

_ELSEWHERE = ("base", "observe", "pattern")  # options of ``relex-merge recipe``
_DEVICES = {"gpu": "cuda", "nvidia": "cuda", "rocm": "cuda", "metal": "mps", "intel": "xpu"}


class Device(click.types.StringParamType):
    """A device as torch calls it; what people call it otherwise is refused with torch's name."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name."""
        kind, colon, number = str(value).partition(":")
        if meant := _DEVICES.get(kind.lower()):
            self.fail(f"there is no device {value!r}; did you mean {meant}{colon}{number}?")
        return str(value)


def unknown_command(arguments: Sequence[str], known: Collection[str]) -> str:
    """Say that there is no such command, and which may have been meant.

    Args:
        arguments: the whole command line; the command stands first.
        known: names of the commands.
    """
    name, *rest = arguments
    said = f"there is no command {name!r}"
    if name.endswith(SUFFIXES):
        return f"{said}; did you mean: {_line('run', name, *rest or ['OUT'])}"
    if local_folder(name):
        return f"{said}, but a folder; if it holds the checkpoints of a run: {write_one(name)}"
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"{said}; did you mean: {_line(near[0], *rest)}"
    return f"{said}; there are {', '.join(known)}"


def check_order(recipe: Path, out: Path) -> None:
    """Raise UsageError where OUT stands before RECIPE."""
    swapped = out.suffix in SUFFIXES and is_local_file(str(out))
    if swapped and not is_local_file(str(recipe)):
        meant = _line("run", out, recipe)
        raise click.UsageError(f"{out} is no OUT: RECIPE comes first; did you mean: {meant}")


def check_folder_first(command: str, folder: Path | str, repo: str) -> None:
    """Raise UsageError where the Hub repo stands before the folder that is published."""
    if local_folder(repo) and not (is_place(str(folder)) or local_folder(str(folder))):
        meant = _line(command, repo, folder)
        raise click.UsageError(f"the folder comes first, then REPO; did you mean: {meant}")


def explain_option(error: click.NoSuchOption, arguments: Sequence[str]) -> None:
    """Raise UsageError for an option that is something else: of a recipe, or of its command.

    Args:
        error: what click says of it.
        arguments: of the command; the value is taken from there.
    """
    from relex_merge.recipe.schema import KEYS, PARAMETERS

    option = error.option_name
    name = option.lstrip("-").replace("-", "_")
    value = _value(option, arguments)
    name = {"base": "base_model"}.get(name, name)
    if name in PARAMETERS:
        lines = f"parameters:\n    {name}: {value or '…'}"
    elif name in KEYS:
        lines = f"{name}: {value or '…'}"
    elif name in _ELSEWHERE:
        raise click.UsageError(
            f"{option} is no option of this command, but of the one that writes recipes: "
            f"{write_one()} {option} {value or '…'}",
            error.ctx,
        )
    else:
        return
    raise click.UsageError(
        f"{option} is no option: it stands in the recipe. Write there:\n\n  {lines}", error.ctx
    )


def _line(*arguments: object) -> str:
    """Return a command line of this program."""
    return shlex.join(["relex-merge", *map(str, arguments)])


def _value(option: str, arguments: Sequence[str]) -> str | None:
    """Return the value that an option was given, None without one."""
    for argument, following in zip(arguments, [*arguments[1:], "--"], strict=True):
        name, equals, value = argument.partition("=")
        if name == option:
            given = value if equals else following
            return None if given.startswith("--") else given
    return None
