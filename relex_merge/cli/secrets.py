"""Nothing that the command prints or logs holds a token or a signed URL."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Iterator
from typing import Any

from relex_merge.errors import blank_secrets


def blank(text: str) -> str:
    """Return ``text`` without secrets, the user's own token among them, whatever its form."""
    from huggingface_hub import get_token

    return blank_secrets(text, get_token())


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an error and of those behind it, without secrets."""
    return blank("".join(traceback.format_exception(error)))


@contextlib.contextmanager
def blanked_logs() -> Iterator[None]:
    """Blank secrets in every log record that is made meanwhile, by whichever library.

    ``huggingface_hub`` logs the addresses of requests that failed.
    """
    make = logging.getLogRecordFactory()

    def make_blank(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        with contextlib.suppress(TypeError, ValueError):  # arguments that do not fit are told later
            record.msg, record.args = blank(record.getMessage()), None
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = traceback_of(record.exc_info[1]).rstrip()
        return record

    logging.setLogRecordFactory(make_blank)
    try:
        yield
    finally:
        logging.setLogRecordFactory(make)
