"""The one exception that reaches a user."""

from __future__ import annotations


class RelexError(Exception):
    """A fault that the user can act on.

    The message names the culprit (file, checkpoint, tensor or parameter) and the remedy. The
    command line prints it alone and exits with ``exit_code``; a traceback is shown with ``-v``.
    """

    exit_code = 1
