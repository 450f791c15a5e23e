"""The one exception that reaches a user, and what no message may show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TOKEN = re.compile(
    r"(?<![A-Za-z0-9_])(?:hf_oauth_[\w.\-]{16,}|(?:hf|api_org)_[A-Za-z0-9]{16,})", re.ASCII
)
# What makes a signed URL the key to a file: AWS, CloudFront, Google, Azure, the Hub's own.
_SIGNED = re.compile(
    r"(?i)(?<=[?&;])((?:x-(?:amz|goog|xet)-[\w\-]*|signature|sig|policy|key-pair-id|"
    r"awsaccesskeyid|googleaccessid|(?:[a-z]+_)?token|api_?key)=)[^&\s\"'<>()\[\]{},;:]+"
)


def blank_secrets(text: str, *known: str | None) -> str:
    """Return ``text`` without access tokens of the Hub and without the signatures of URLs.

    Args:
        text: what is to be shown, logged or published.
        known: further secrets, such as a token of an unusual form; None and "" are passed over.
    """
    for secret in filter(None, known):
        text = text.replace(secret, "***")
    return _SIGNED.sub(r"\1***", _TOKEN.sub("hf_***", text))


class RelexError(Exception):
    """A fault that the user can act on.

    The message names the culprit (file, checkpoint, tensor or parameter) and the remedy, and never
    shows a token or a signed URL. The command line prints it alone and exits with ``exit_code``; a
    traceback is shown with ``-v``.
    """

    exit_code = 1

    def __init__(self, message: object) -> None:
        super().__init__(blank_secrets(str(message)))


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
