"""What a call says when it refuses something."""

from __future__ import annotations

from collections.abc import Callable

from relex_merge.errors import RelexError

LONGEST = 6000  # characters


def refusal(call: Callable[[], object]) -> str | None:
    """Return the message with which a call refuses, None when it succeeds.

    Raises:
        AssertionError: the message is not one line that can be shown.
    """
    try:
        call()
    except RelexError as error:
        message = str(error)
        assert message.isprintable(), repr(message)
        assert 0 < len(message) < LONGEST, f"{len(message)} characters: {message[:200]}"
        return message
    return None
