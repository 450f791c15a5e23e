"""The one exception that reaches a user, words for others, and what no message may show.

The command line of ``pip`` that a message or a page tells to type stands here too.
"""

from __future__ import annotations

import errno
import re
import shlex
import traceback
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


def printable(text: str) -> str:
    """Return ``text`` with escapes for what a terminal cannot show, or would obey."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


class RelexError(Exception):
    """A fault that the user can act on.

    The message names the culprit (file, checkpoint, tensor or parameter) and the remedy, and never
    shows a token, a signed URL or a control character, whatever file its parts come from. The
    command line prints it alone and exits with ``exit_code``; a traceback is shown with ``-v``.
    """

    exit_code = 1

    def __init__(self, message: object) -> None:
        super().__init__(printable(blank_secrets(str(message))))


class RefusedError(RelexError):
    """A model that was not wanted, as its verdict is.

    Attributes:
        final: whether what was computed is not worth keeping either.
    """

    exit_code = 3

    def __init__(self, message: object, *, final: bool = True) -> None:
        super().__init__(message)
        self.final = final


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a failed write to ``path`` into a RelexError that says what to do."""
    try:
        yield
    except OSError as error:
        raise RelexError(
            f"cannot write {path}: {error.strerror or error}; {_remedy(error)}"
        ) from error


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a disk, a quota or a limit that leaves no room."""


def _remedy(error: OSError) -> str:
    if error.errno in FULL:
        return "free some room or choose another place for OUT"
    if error.errno == errno.ENAMETOOLONG:
        return "choose a shorter name"
    return "choose another place for it, or make this one writable"


INSTALL = "pip install .  # in a checkout of relex-merge"
"""How this package is installed: it is on no index."""

EXTRAS = {
    "eval": ("lm-eval[math]>=0.4.12",),
    "gs": ("gcsfs>=2024.6",),
    "plot": ("matplotlib>=3.8",),
    "s3": ("s3fs>=2024.6",),
    "trl": ("datasets>=3", "trl>=1.0"),
    "vllm": ("lm-eval[math,vllm]>=0.4.12",),
}
"""What the optional dependencies in pyproject.toml are, as an index has them."""


def pip_line(extra: str) -> str:
    """Return the command that installs what an extra needs, wherever it is typed."""
    return f"pip install {' '.join(map(shlex.quote, EXTRAS[extra]))}"


def not_installed(who: str, extra: str) -> RelexError:
    """Return the error of something that needs an optional package.

    Args:
        who: what needs which package, such as "plots need matplotlib".
        extra: the extra that has the package.
    """
    return RelexError(f"{who}, which is not installed: {pip_line(extra)}")


def where_it_happened(error: BaseException) -> str:
    """Return kind and text of an unexpected error, and the line of this package it came from."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    root = Path(__file__).resolve().parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.is_relative_to(root):
            place = file.relative_to(root.parent).as_posix()
            return f"{text}, at {place}:{frame.lineno} in {frame.name}"
    return text
