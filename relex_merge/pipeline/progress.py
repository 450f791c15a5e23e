"""Progress bars: one look for everything that takes longer than a few seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol, TypeAlias


class Advance(Protocol):
    """Moves a bar on."""

    def __call__(self, count: int = 1, /) -> None:
        """Count further items, or bytes, as done."""


# Given the total, shows a bar and returns what moves it on.
StartBar: TypeAlias = Callable[[int], Advance]


@contextmanager
def progress_bar(
    description: str, *, quiet: bool, in_bytes: bool = False, delay: float = 0
) -> Iterator[StartBar]:
    """Give a function that shows a bar once the total is known; the bar closes with the context.

    Args:
        description: what is counted, in the bar's own words.
        quiet: whether nothing is shown.
        in_bytes: whether the total is a number of bytes.
        delay: seconds before the bar appears.
    """
    from tqdm import tqdm

    with ExitStack() as stack:

        def start(total: int) -> Advance:
            bar = stack.enter_context(
                tqdm(
                    total=total,
                    desc=description,
                    unit="B" if in_bytes else "it",
                    unit_scale=in_bytes,
                    disable=quiet,
                    delay=delay,
                    leave=not delay,
                )
            )

            def advance(count: int = 1, /) -> None:
                bar.update(count)

            return advance

        yield start
