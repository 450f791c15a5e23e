"""The file that ``evaluate --json`` writes, and that ``run --evaluation`` reads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import cast

from relex_merge.errors import RelexError
from relex_merge.report.evaluation import Evaluation

FORMAT = 1
KEYS = ("verdict", "function", "tasks", "chosen", "series")


def write_evaluation(file: Path, evaluation: Evaluation) -> None:
    """Write an evaluation, whole or not at all.

    Raises:
        RelexError: the file cannot be written.
    """
    text = json.dumps({"format": FORMAT, **evaluation}, indent=1, allow_nan=False)
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RelexError(
            f"cannot write {file}: {error.strerror or error}; name another file"
        ) from error


def read_evaluation(file: Path, *, series: str) -> Evaluation:
    """Read the evaluation of a series.

    Args:
        file: what :func:`write_evaluation` wrote.
        series: the fingerprint of the series that is asked about.

    Raises:
        RelexError: the file is missing, no evaluation, of a later format, or of another series.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RelexError(f"cannot read {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise RelexError(
            f"{file} is no JSON; make it with `relex-merge evaluate --json`"
        ) from error
    if not isinstance(found, dict) or not all(key in found for key in KEYS):
        raise RelexError(f"{file} is no evaluation; make one with `relex-merge evaluate`")
    if found.pop("format", None) != FORMAT:
        raise RelexError(f"{file} is of another version of relex-merge; make it again")
    if found["series"] != series:
        raise RelexError(
            f"{file} is the evaluation of another series; evaluate this one, or name its own file"
        )
    return cast("Evaluation", found)
