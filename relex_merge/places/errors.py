"""Requests to a place that fail: which are worth repeating, and what a person is told."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from relex_merge.errors import FULL, RelexError
from relex_merge.hub.errors import http_error
from relex_merge.places.address import protocol_of

T = TypeVar("T")

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 32.0, 32.0)  # seconds between attempts, two minutes in all
CREDENTIALS = {
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run `aws sso login`",
    "gs": "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
    "hf": "log in with `hf auth login` or set HF_TOKEN",
}
_SAME = {"s3a": "s3", "gcs": "gs"}
_REFUSED = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "DefaultCredentialsError",
    "ProfileNotFound",
    "TokenRetrievalError",
    "SSOTokenLoadError",
    "UnauthorizedSSOTokenError",
}
_FINAL = (
    *(FileNotFoundError, FileExistsError, PermissionError),
    *(NotADirectoryError, IsADirectoryError),
)
_LIBRARIES = {"botocore", "aiobotocore", "aiohttp", "gcsfs"}  # none of which need be installed
_FINAL_STATUS = range(400, 500)
_BUSY = (408, 429)

_LOG = logging.getLogger(__name__)


def patiently(
    call: Callable[[], T], what: str, *, pause: Callable[[float], object] = time.sleep
) -> T:
    """Return the result of ``call``, repeated while the place does not serve it for the moment.

    The libraries repeat requests by themselves for some seconds; this goes on for two minutes.

    Args:
        call: one request or several, safe to repeat.
        what: what is asked for, for the log.
        pause: what waits so many seconds; it may raise.

    Raises:
        Exception: of the last attempt, or the first that is not worth repeating.
    """
    for wait in WAITS:
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
            _LOG.log(
                logging.WARNING if wait >= 4 else logging.INFO,
                "%s was not served (%s); trying again in %g s",
                what,
                first_line(error),
                wait,
            )
        pause(wait)
    return call()


def is_transient(error: BaseException) -> bool:
    """Tell whether an error is of a request, or of a place, that may go better soon."""
    if isinstance(error, (RelexError, *_FINAL)) or refuses(error) or _is_full(error):
        return False
    status = _status(error)
    if status is not None:
        return status not in _FINAL_STATUS or status in _BUSY
    if isinstance(error, (OSError, TimeoutError, EOFError, http_error())):
        return True
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return not modules.isdisjoint(_LIBRARIES)


def _is_full(error: BaseException) -> bool:
    """Tell whether it is this disk that has no room."""
    return isinstance(error, OSError) and error.errno in FULL


def refuses(error: BaseException) -> bool:
    """Tell whether a place wants other credentials, or any at all."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return (
        isinstance(error, PermissionError)
        or bool(names & _REFUSED)
        or (_status(error) in (401, 403))
    )


def _status(error: BaseException) -> int | None:
    """Return the HTTP status behind an error, None where there is none."""
    behind: BaseException | None = error
    while behind is not None:
        response = getattr(behind, "response", None)
        if isinstance(response, dict):  # botocore's
            found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            found = getattr(response, "status_code", None) or getattr(behind, "status", None)
        if isinstance(found, int):
            return found
        behind = behind.__cause__
    return None


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def credentials_help(address: str) -> str:
    """Return what to do for credentials that the place accepts."""
    protocol = protocol_of(address).rpartition("::")[2]
    protocol = _SAME.get(protocol, protocol)
    return CREDENTIALS.get(protocol, f"give credentials as fsspec's {protocol} file system has it")


@contextmanager
def place_errors(address: str, doing: str = "read") -> Iterator[None]:
    """Turn what a place's library raises into a RelexError that names the address and a remedy.

    Args:
        address: what was asked for.
        doing: "read" or "written".

    Raises:
        RelexError: in the place of the library's exception.
        OSError: this disk is full.
    """
    try:
        yield
    except RelexError:
        raise
    except Exception as error:
        if _is_full(error) or not (
            is_transient(error) or refuses(error) or isinstance(error, OSError)
        ):
            raise
        raise RelexError(f"{address} cannot be {doing}: {_explain(error, address)}") from error


def _explain(error: BaseException, address: str) -> str:
    said = first_line(error)
    if refuses(error):
        return f"access is refused ({said}); {credentials_help(address)}"
    if isinstance(error, FileNotFoundError):
        return f"there is no such bucket, folder or file ({said}); check the name"
    if is_transient(error):
        return (
            f"no good answer came ({said}); check the network and the endpoint, then repeat the "
            "command"
        )
    return said
