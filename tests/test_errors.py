"""Promises of the one exception that users see."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from relex_merge.errors import EXTRAS, INSTALL, RelexError, pip_line

ROOT = Path(__file__).parents[1]


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


# ---- how packages are installed


def test_extras_are_those_of_the_project() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    told = {
        extra: tuple(re.findall(r'"([^"]+)"', listed))
        for extra, listed in re.findall(r"^(\w+) = \[(.*)\]$", section, re.MULTILINE)
    }
    assert told == EXTRAS


def test_a_line_can_be_pasted() -> None:
    assert pip_line("trl") == "pip install 'datasets>=3' 'trl>=1.0'"
    assert pip_line("eval") == "pip install 'lm-eval[math]>=0.4.12'"


def test_no_text_takes_this_package_from_an_index() -> None:
    """It is on none."""
    pages = [ROOT / "README.md"]
    for place in ("relex_merge", "recipes"):
        pages += [
            path
            for path in sorted((ROOT / place).rglob("*"))
            if path.suffix in {".py", ".md", ".yml"}
        ]
    wrong = re.compile(r"(pip|uv|uvx|pipx) (\w+ )*['\"]?relex[-_]merge\b|relex[-_]merge\[")
    assert [page for page in pages if wrong.search(page.read_text(encoding="utf-8"))] == []
    assert INSTALL.startswith("pip install . ")
