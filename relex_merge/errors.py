"""The one exception that reaches a user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class RelexError(Exception):
    """A fault that the user can act on.

    The message names the culprit (file, checkpoint, tensor or parameter) and the remedy. The
    command line prints it alone and exits with ``exit_code``; a traceback is shown with ``-v``.
    """

    exit_code = 1


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a failed write to ``path`` into a RelexError that says what to do."""
    try:
        yield
    except OSError as error:
        raise RelexError(
            f"cannot write {path}: {error.strerror or error}; free some room or choose another "
            "place for OUT"
        ) from error
