"""Requests to the Hub that fail: which are worth repeating, and what a person is told.

``huggingface_hub`` repeats uploads, listings and the preupload request by itself, for half a minute
at most. Everything else it tries once. ``patiently`` repeats whatever it is given for two minutes,
so that a Hub that goes away for one costs no run, and waits as long as the Hub asks for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from relex_merge.errors import RelexError, blank_secrets

T = TypeVar("T")

TOKEN_HELP = "log in with `hf auth login` or set HF_TOKEN"
BUSY = 429
TRANSIENT = frozenset({408, BUSY, 500, 502, 503, 504})
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 32.0, 32.0)  # seconds between attempts, two minutes in all
_LONGEST_WAIT = 310.0  # seconds; the Hub counts requests over windows of five minutes
_WORTH_A_WORD = 4.0  # seconds; of a shorter pause nobody needs to know

_LOG = logging.getLogger(__name__)
_within: ContextVar[bool] = ContextVar("within patiently", default=False)


def patiently(
    call: Callable[[], T],
    transient: frozenset[int] = TRANSIENT,
    *,
    pause: Callable[[float], object] | None = None,
) -> T:
    """Return the result of ``call``, repeated while the Hub does not serve it for the moment.

    The pauses are those that ``Retry-After`` or ``RateLimit`` ask for, else WAITS. Inside another
    ``patiently`` it tries once: the outer one repeats the whole.

    Args:
        call: one request or several, safe to repeat.
        transient: statuses after which it is repeated. A request that got no answer is repeated as
            well where server errors are among them.
        pause: what waits so many seconds, by default ``time.sleep``; it may raise.

    Raises:
        HTTPError: of the last attempt, or of the first one that is not worth repeating; or what the
            client wraps around it.
    """
    if _within.get():
        return call()
    within = _within.set(True)
    try:
        return _repeated(call, transient, pause or time.sleep)
    finally:
        _within.reset(within)


def _repeated(
    call: Callable[[], T], transient: frozenset[int], pause: Callable[[float], object]
) -> T:
    for wait in WAITS:
        try:
            return call()
        except (http_error(), OSError, RuntimeError) as error:
            seconds = _worth_waiting(error, transient, wait)
            if seconds is None:
                raise
            _LOG.log(
                logging.WARNING if seconds >= _WORTH_A_WORD else logging.INFO,
                "The Hub did not serve a request (%s); trying again in %g s",
                status_of(request_error(error)) or "no answer",
                seconds,
            )
        pause(seconds)
    return call()


def _worth_waiting(error: Exception, transient: frozenset[int], wait: float) -> float | None:
    """Return the seconds until the next attempt, None where another one would not help."""
    error = request_error(error)
    if not is_of_request(error):
        return None
    status = status_of(error)
    if not (status in transient if status else transient > {BUSY}):
        return None
    asked = _asked_wait(error)
    if asked is None:
        return wait
    return asked if asked <= _LONGEST_WAIT else None


def request_error(error: Exception) -> Exception:
    """Return the error of the request itself, where the client has wrapped another around it."""
    cause = error
    while not isinstance(cause, http_error()) and isinstance(cause.__cause__, Exception):
        cause = cause.__cause__
    return cause


def is_of_request(error: Exception) -> bool:
    """Tell whether an error is of a request, and not of what was done with the answer.

    ``huggingface_hub`` closes the client that all threads share when a connection is refused, and
    makes a new one afterwards; requests of other threads then find theirs closed.
    """
    closed = isinstance(error, RuntimeError) and "client has been closed" in str(error)
    return closed or isinstance(error, http_error())


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that the Hub answered with, None where there was no answer."""
    from huggingface_hub.errors import HfHubHTTPError

    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


@contextmanager
def hub_errors(repo: str, token: str | None) -> Iterator[None]:
    """Turn what ``huggingface_hub`` raises about ``repo`` into a RelexError without any token.

    Args:
        repo: repo id, for the message.
        token: the token in use, which may be of an unusual form.

    Raises:
        RelexError: one message with the cause and the remedy.
    """
    try:
        yield
    except (http_error(), OSError, ValueError, RuntimeError) as error:
        raise RelexError(blank_secrets(_explain(error, repo), token)) from error


def http_error() -> type[Exception]:
    """Return the base of every error of the HTTP client that ``huggingface_hub`` is built on."""
    from huggingface_hub.errors import HfHubHTTPError

    # The client's package has changed its name before; the class above its error has not.
    base: type[Exception] = HfHubHTTPError.__bases__[0]
    return base


def _asked_wait(error: Exception) -> float | None:
    """Return the seconds that the answer asks to wait: ``Retry-After`` before ``RateLimit``."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    if not isinstance(error, HfHubHTTPError):
        return None
    headers = error.response.headers
    after = headers.get("retry-after", "").strip()
    if after.isdecimal():
        return float(after)
    limit = parse_ratelimit_headers(headers) if status_of(error) == BUSY else None
    return float(limit.reset_in_seconds) if limit else None


def no_connection(error: BaseException) -> str:
    """Return what to say of a request without an answer: why, and what to do."""
    return (
        f"no connection to the Hub ({_first_line(error) or type(error).__name__}); check the "
        "network and HF_ENDPOINT, then repeat the command"
    )


def _explain(error: BaseException, repo: str) -> str:
    """Return one sentence of cause and one of remedy."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        # an upload's error says which file, its cause says why
        return f"{_first_line(error)} {_explain(error.__cause__, repo)}"
    if isinstance(error, HFValidationError):
        reason = f"no repo id, which is namespace/name: {_first_line(error)}"
    elif isinstance(error, OfflineModeIsEnabled):
        reason = "the Hub cannot be reached in offline mode; unset HF_HUB_OFFLINE"
    elif isinstance(error, GatedRepoError):
        reason = f"the repo is gated; ask for access on its page, then {TOKEN_HELP}"
    elif status_of(error) is not None:
        reason = _explain_status(error, isinstance(error, RepositoryNotFoundError))
    elif isinstance(error, Exception) and is_of_request(error):
        reason = no_connection(error)
    else:
        reason = str(error).strip() or type(error).__name__
    return f"{repo}: {reason}"


def _explain_status(error: BaseException, not_found: bool) -> str:
    """Return what an HTTP status means to a person who pushes or pulls a model."""
    status = status_of(error)
    said = getattr(error, "server_message", None)
    said = f" ({' '.join(said.split())})" if said else ""
    if status == 401:
        return f"the Hub does not accept the token{said}; {TOKEN_HELP}"
    if status == 403:
        return (
            f"this token may not write here{said}; use one with write access to the repo "
            f"(https://huggingface.co/settings/tokens) and {TOKEN_HELP}, or let relex-merge push "
            "open a pull request with --create-pr"
        )
    if not_found:
        return f"no such repo, or no access with this token{said}; check the name, or {TOKEN_HELP}"
    known = {
        404: f"there is no such page{said}; check that HF_ENDPOINT is a Hub",
        409: f"the Hub reports a conflict{said}; choose another revision or repeat the command",
        412: f"the revision has changed meanwhile{said}; repeat the command",
        413: f"the Hub refuses the size of the upload{said}; use smaller shards",
        BUSY: f"the Hub limits the rate of requests{said}; repeat the command in a few minutes",
    }
    if status is not None and status >= 500:
        return (
            f"the Hub fails with status {status}{said}; repeat the command later (a push sends no "
            "file twice)"
        )
    return known.get(status or 0, f"the Hub refuses with status {status}{said}")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
