"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Size(click.ParamType[int]):
    """A number of bytes: 500M, 2G, 1.5GiB, 1048576."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes; K, M, G and T are powers of 1024."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", str(value), re.IGNORECASE)
        if not match:
            self.fail(f"{value!r} is not a size; write for example 500M or 2G", param, ctx)
        return int(float(match[1]) * _UNITS[match[2].upper()])


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
