"""JSON files of a checkpoint: read strictly, or only looked at while a trainer may be writing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from relex_merge.errors import RelexError

Json: TypeAlias = Mapping[str, Any]


def read_json(path: Path, label: str | None = None) -> dict[str, Any]:
    """Return the object in a JSON file, empty where there is no file.

    Args:
        path: the file.
        label: what to call it in messages; by default its path.

    Raises:
        RelexError: the file cannot be read, or holds something else.
    """
    if not path.exists():
        return {}
    try:
        return parse_object(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RelexError(f"{label or path} is no whole JSON file ({error}); fetch it again") from (
            error
        )


def peek_json(path: Path) -> Json:
    """Return the object in a JSON file, empty while there is none or it is not whole."""
    try:
        return parse_object(path.read_bytes())
    except (OSError, ValueError):
        return {}


def parse_object(text: bytes, *, unique: bool = False) -> dict[str, Any]:
    """Parse a JSON object in UTF-8. Raises ValueError for any other text.

    Args:
        text: what the file holds.
        unique: also refuse an object in which a key occurs twice.
    """
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_unique if unique else None)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")  # noqa: TRY004  # as for any other wrong text
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"{key} is in it twice")
    return found
