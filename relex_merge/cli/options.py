"""Options that several commands share, and how their help is laid out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import click

from relex_merge.cli.merge_options import OPTIONS, READING, TITLE
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


class PlaceOrPath(click.ParamType[Any]):
    """A path on this disk, or the address of a place (``s3://bucket/folder``) as it was written."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a path, or the address."""
        from relex_merge.places.address import place_or_path

        return place_or_path(value)


PLACE_OR_PATH = PlaceOrPath()


class TargetStep(click.ParamType[Any]):
    """A step, or ``auto``."""

    name = "step"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or ``auto``."""
        if value == "auto":
            return value
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is no step; give a number, or auto", param, ctx)


TARGET_STEP = TargetStep()


class Merging(click.Command):
    """A command with mergekit's options, which its help shows in a section of their own.

    Those that mean nothing to a command that writes no model are accepted and not shown.

    Attributes:
        sections: title → names of the command's own options, in this order; what is in none of
            them stands first, under "Options".
        writes: whether the command writes models.
        about: argument → what it is.
    """

    sections: ClassVar[Mapping[str, Sequence[str]]] = {}
    writes: ClassVar[bool] = True
    about: ClassVar[Mapping[str, str]] = {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line; of what stands in the recipe, say so."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            from relex_merge.cli.meant import explain_option

            explain_option(error, given)
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the arguments and the sections."""
        if self.about:
            with formatter.section("Arguments"):
                formatter.write_dl(list(self.about.items()))
        options = {p.name: p for p in self.get_params(ctx) if isinstance(p, click.Option)}
        merging = [name for name in OPTIONS if self.writes or name in READING]
        placed = {name for names in self.sections.values() for name in names}
        own = [name for name in options if name not in placed and name not in OPTIONS]
        for title, names in {"Options": own, **self.sections, TITLE: merging}.items():
            records = [options[name].get_help_record(ctx) for name in names if name in options]
            if records:
                with formatter.section(title):
                    formatter.write_dl([record for record in records if record])


def publishing_options(command: F) -> F:
    """Add the options of ``run --push-to`` and ``push``: where and how to publish."""
    for option in (
        click.option("--create-pr", is_flag=True, help="Open a pull request instead."),
        click.option("--private", is_flag=True, help="Make the repo private if it is created."),
        click.option("--revision", metavar="NAME", help="Default: relex-step-<N>."),
    ):
        command = option(command)
    return command
