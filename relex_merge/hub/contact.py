"""Whether the Hub answers at all, asked once before the first request that matters.

Without this a Hub that cannot be reached would be found out by every request for itself, each with
its own repeats: minutes, and a page of warnings, for a typing error in ``HF_ENDPOINT``.
"""

from __future__ import annotations

import functools
import time

from relex_merge.errors import RelexError
from relex_merge.hub.errors import http_error, no_connection

_TIMEOUT = 2.5  # seconds for one answer
_PAUSES = (0.5, 1.0, 2.0)  # seconds between attempts
_TIMEOUTS = 2  # so often nothing may be heard; a refused connection is told at once
_AWAY = frozenset({502, 503, 504})


def reach(repo: str) -> None:
    """Return when the Hub answers; in offline mode it is not asked.

    Args:
        repo: the repo that is asked for next.

    Raises:
        HFValidationError: ``repo`` is no repo id, so the Hub needs not be asked.
        RelexError: no answer came within a few seconds.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    validate_repo_id(repo)
    if not constants.HF_HUB_OFFLINE:
        try:
            first_answer(constants.ENDPOINT)
        except RelexError as error:
            raise RelexError(f"{repo}: {error}") from error


@functools.cache
def first_answer(endpoint: str) -> None:
    """Ask for the Hub's front page until any answer comes; once that was so, never again.

    Raises:
        RelexError: there was none.
    """
    from huggingface_hub import get_session

    began = time.monotonic()
    for pause in (*_PAUSES, None):
        try:
            answer = get_session().head(endpoint, timeout=_TIMEOUT, follow_redirects=False)
            if answer.status_code not in _AWAY:
                return
            fault = (
                f"the Hub at {endpoint} is away (status {answer.status_code}); repeat the command "
                "later"
            )
            cause = None
        except (http_error(), RuntimeError) as error:
            fault, cause = f"{endpoint}: {no_connection(error)}", error
        if pause is None or time.monotonic() - began > _TIMEOUTS * _TIMEOUT:
            raise RelexError(fault) from cause
        time.sleep(pause)
