"""The file that ``evaluate --json`` writes, and that ``run --evaluation`` reads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NoReturn, cast

from relex_merge.errors import RelexError
from relex_merge.report.evaluation import Evaluation

FORMAT = 1
KEYS = ("verdict", "function", "tasks", "chosen", "series")
EVALUATION_SUFFIX = ".evaluation.json"
_REMEDY = "make it with `relex-merge evaluate RECIPE"


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


def evaluation_beside(recipe: Path) -> Path:
    """Return where the evaluation of a recipe lies by default.

    That is beside it: ``recipe.yml`` → ``recipe.evaluation.json``. ``evaluate`` writes it there,
    for a recipe and for the one that it chose, and ``run`` finds it.
    """
    return recipe.with_name(f"{recipe.stem}{EVALUATION_SUFFIX}")


def read_evaluation(file: Path, *, series: str) -> Evaluation:
    """Read the evaluation of a series.

    Args:
        file: what :func:`write_evaluation` wrote.
        series: the fingerprint of the series that is asked about.

    Raises:
        RelexError: the file is missing, no evaluation, of a later format, or of another series.
    """
    found = load_evaluation(file)
    check_series(found, file, series)
    return found


def load_evaluation(file: Path) -> Evaluation:
    """Read an evaluation, of whatever series.

    Raises:
        RelexError: the file is missing, no evaluation, or of a later format.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise RelexError(f"cannot read {file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise RelexError(f"{file} is no JSON ({error}); {_REMEDY} --json FILE`") from error
    if not isinstance(found, dict) or not all(key in found for key in KEYS):
        raise RelexError(f"{file} is no evaluation; {_REMEDY}`")
    if found.pop("format", None) != FORMAT:
        raise RelexError(f"{file} is of another version of relex-merge; {_REMEDY}`")
    return _checked(found, file)


def check_series(evaluation: Evaluation, file: Path, series: str) -> None:
    """Raise RelexError where an evaluation, read from ``file``, is not of ``series``."""
    if evaluation["series"] != series:
        raise RelexError(
            f"{file} is the evaluation of another series, or of this one before its files changed; "
            "evaluate this one, or name its own file"
        )


def _checked(found: dict[str, object], file: Path) -> Evaluation:
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(Evaluation).validate_python(found, strict=True)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise RelexError(f"{file} is no evaluation ({place}: {fault['msg']}); {_REMEDY}`") from (
            error
        )
    evaluation = cast("Evaluation", found)
    intervals = [e["interval"] for entries in evaluation["tasks"].values() for e in entries]
    if not evaluation["last_step"] > 0:
        raise RelexError(f"{file} is no evaluation (last_step is not above 0); {_REMEDY}`")
    if any(interval is not None and len(interval) != 2 for interval in intervals):
        raise RelexError(f"{file} is no evaluation (an interval has two ends); {_REMEDY}`")
    return evaluation


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")
