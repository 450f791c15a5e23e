"""Requests to the Hub that fail: which are worth repeating, and what a person is told.

``huggingface_hub`` repeats uploads, listings and the preupload request by itself. Creating a repo
or a branch, listing refs and committing it tries once; ``patiently`` repeats those, and waits as
long as the Hub asks for.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from relex_merge.errors import RelexError

T = TypeVar("T")

TOKEN_HELP = "log in with `hf auth login` or set HF_TOKEN"
BUSY = 429
TRANSIENT = frozenset({408, BUSY, 500, 502, 503, 504})
_ATTEMPTS = 4
_FIRST_WAIT = 1.0  # seconds; doubled each time
_LONGEST_WAIT = 310.0  # seconds; the Hub counts requests over windows of five minutes

_LOG = logging.getLogger(__name__)


def patiently(
    call: Callable[[], T],
    transient: frozenset[int] = TRANSIENT,
    *,
    attempts: int = _ATTEMPTS,
    pause: Callable[[float], object] | None = None,
) -> T:
    """Result of ``call``, repeated while the Hub answers with a ``transient`` status.

    A request that got no answer is repeated as well where ``transient`` has server errors in it,
    so ``call`` must be safe to repeat then. Waits what ``Retry-After`` or ``RateLimit`` says, else
    1, 2, 4, … seconds. ``pause`` is what waits, by default ``time.sleep``; it may raise.

    Raises:
        HTTPError: of the last attempt, or of the first one that is not worth repeating.
    """
    wait = _FIRST_WAIT
    for _ in range(attempts - 1):
        try:
            return call()
        except http_error() as error:
            status = status_of(error)
            asked = _asked_wait(error)
            if not (status in transient if status else transient > {BUSY}) or (
                asked is not None and asked > _LONGEST_WAIT
            ):
                raise
            seconds = wait if asked is None else asked
            _LOG.warning(
                "The Hub did not serve a request (%s); trying again in %g s", status, seconds
            )
            (pause or time.sleep)(seconds)
            wait *= 2
    return call()


def status_of(error: BaseException) -> int | None:
    """HTTP status that the Hub answered with, or None where there was no answer."""
    from huggingface_hub.errors import HfHubHTTPError

    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


@contextmanager
def hub_errors(repo: str, token: str | None) -> Iterator[None]:
    """Turns what ``huggingface_hub`` raises about ``repo`` into RelexError, tokens blanked.

    Raises:
        RelexError: one message with the cause and the remedy.
    """
    try:
        yield
    except (http_error(), OSError, ValueError, RuntimeError) as error:
        message = blank_tokens(_explain(error, repo))
        raise RelexError(message.replace(token, "***") if token else message) from error


def http_error() -> type[Exception]:
    """Base of every error of the HTTP client that ``huggingface_hub`` is built on."""
    from huggingface_hub.errors import HfHubHTTPError

    # The client's package has changed its name before; the class above its error has not.
    base: type[Exception] = HfHubHTTPError.__bases__[0]
    return base


def _asked_wait(error: Exception) -> float | None:
    """Seconds that the answer asks to wait: ``Retry-After: 7`` or ``RateLimit: "api";r=0;t=7``."""
    from huggingface_hub.errors import HfHubHTTPError

    if not isinstance(error, HfHubHTTPError):
        return None
    headers = error.response.headers
    found = re.fullmatch(r"\s*(\d+)\s*", headers.get("retry-after", ""))
    if found is None and status_of(error) == BUSY:
        found = re.search(r"\bt\s*=\s*(\d+)", headers.get("ratelimit", ""))
    return float(found[1]) if found else None


def _explain(error: BaseException, repo: str) -> str:
    """One sentence of cause and one of remedy."""
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
    elif isinstance(error, http_error()):
        reason = (
            f"no connection to the Hub ({_first_line(error) or type(error).__name__}); check the "
            "network and HF_ENDPOINT, then repeat the command"
        )
    else:
        reason = str(error).strip() or type(error).__name__
    return f"{repo}: {reason}"


def _explain_status(error: BaseException, not_found: bool) -> str:
    """What an HTTP status means to somebody who pushes or pulls a model."""
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
        409: f"the Hub reports a conflict{said}; choose another revision or repeat the command",
        412: f"the revision was changed by somebody else meanwhile{said}; repeat the command",
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


_TOKEN = re.compile(r"(?<![A-Za-z0-9_])(?:hf|api_org)_[A-Za-z0-9]{16,}")


def blank_tokens(text: str) -> str:
    """``text`` without access tokens of the Hub."""
    return _TOKEN.sub("hf_***", text)
