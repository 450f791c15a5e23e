"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from relex_merge.formatting import read_size

F = TypeVar("F", bound=Callable[..., Any])


class Size(click.ParamType[int]):
    """A number of bytes: 500M, 2G, 1.5GiB, 1048576."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes; K, M, G and T are powers of 1024."""
        if isinstance(value, int):
            return value
        nbytes = read_size(str(value))
        if nbytes is None:
            self.fail(f"{value!r} is not a size; write for example 500M or 2G", param, ctx)
        return nbytes


SIZE = Size()


def publishing_options(command: F) -> F:
    """Add the options of ``run --push-to`` and ``push``: where and how to publish."""
    for option in (
        click.option("--create-pr", is_flag=True, help="Open a pull request instead."),
        click.option("--private", is_flag=True, help="Make the repo private if it is created."),
        click.option("--revision", metavar="NAME", help="Default: relex-step-<N>."),
    ):
        command = option(command)
    return command
