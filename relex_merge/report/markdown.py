"""Markdown that shows what others wrote as text, and never acts on it."""

from __future__ import annotations

import re


def text(given: object) -> str:
    """Put a text on one line, with everything escaped that Markdown or HTML would act on."""
    return re.sub(r"([\\`*_\[\]<>|~&#$])", r"\\\1", " ".join(str(given).split()))


def item(line: str) -> str:
    """Write an item of a list; a list marker that ``line`` begins with starts no second list."""
    return "- " + re.sub(r"^(\d*)([+\-=.)])", r"\1\\\2", text(line))


def code(given: str) -> str:
    """Write a code span, whatever backticks it holds."""
    line = " ".join(given.split())
    fence = "`" * (_longest_backticks(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def fenced(given: str, language: str) -> str:
    """Write a code block, whatever fences it holds."""
    fence = "`" * max(3, _longest_backticks(given) + 1)
    return f"{fence}{language}\n{given.rstrip()}\n{fence}"


def _longest_backticks(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)
