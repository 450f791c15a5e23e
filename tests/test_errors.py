"""Promises of the one exception that users see."""

from __future__ import annotations

import pytest

from relex_merge.errors import RelexError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tensor \x00 of \x1b[2Jshard", r"tensor \x00 of \x1b[2Jshard"),
        ("half a \ud800", r"half a \ud800"),
        ("turned \u202eround", r"turned \u202eround"),
        ("Größe δ → 3\nnext line", "Größe δ → 3\nnext line"),
    ],
)
def test_no_message_commands_the_terminal(text: str, shown: str) -> None:
    assert str(RelexError(text)) == shown
