"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from relex_merge.formatting import read_size

if TYPE_CHECKING:
    from mergekit.options import MergeOptions


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


class PlaceOrPath(click.ParamType[Any]):
    """A path on this disk, or the address of a place (``s3://bucket/folder``) as it was written."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a path, or the address."""
        from relex_merge.places.address import place_or_path

        return place_or_path(value)


PLACE_OR_PATH = PlaceOrPath()


class _Checked(click.ParamType[Any]):
    """Another type, whose ValueErrors name the option."""

    def __init__(self, inner: click.ParamType[Any]) -> None:
        self.name = inner.name
        self._inner = inner

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert as the inner type does."""
        try:
            return self._inner.convert(value, param, ctx)
        except ValueError:
            self.fail(f"{value!r} is not a size; write for example 500M or 5B", param, ctx)


def merging_options(command: F) -> F:
    """Add mergekit's own options."""
    from mergekit.options import add_merge_options

    command = add_merge_options(command)
    for option in command.__click_params__:  # type: ignore[attr-defined]  # made by click
        if option.name == "out_shard_size":
            option.type = _Checked(option.type)
    return command


def apply_globally(options: MergeOptions) -> None:
    """Set threads, seed and verbosity for this process. Raises click.UsageError."""
    if options.num_threads is not None and options.num_threads < 1:
        raise click.UsageError(f"--num-threads {options.num_threads}: give at least 1")
    if options.random_seed is not None and not 0 <= options.random_seed < 2**32:
        raise click.UsageError(f"--random-seed {options.random_seed}: give 0 to {2**32 - 1}")
    options.apply_global_options()


def publishing_options(command: F) -> F:
    """Add the options of ``run --push-to`` and ``push``: where and how to publish."""
    for option in (
        click.option("--create-pr", is_flag=True, help="Open a pull request instead."),
        click.option("--private", is_flag=True, help="Make the repo private if it is created."),
        click.option("--revision", metavar="NAME", help="Default: relex-step-<N>."),
    ):
        command = option(command)
    return command
