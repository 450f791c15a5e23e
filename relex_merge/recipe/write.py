"""A recipe for a series, as short as a person would write it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import yaml

from relex_merge.checkpoints.series import Base, Checkpoint, Series
from relex_merge.checkpoints.steps import step_of
from relex_merge.formatting import format_step
from relex_merge.recipe.braces import expand_braces
from relex_merge.recipe.names import METHOD

_FEWEST = 3  # references that a brace range is worth


def entries(checkpoints: Sequence[Checkpoint]) -> list[dict[str, object]]:
    """Return what stands under ``models``: a step only where the reference does not say it."""
    return [
        {"model": c.reference, **({"parameters": {"step": c.step}} if _unclear(c) else {})}
        for c in checkpoints
    ]


def _unclear(checkpoint: Checkpoint) -> bool:
    return step_of(checkpoint.reference) != checkpoint.step


def compact(checkpoints: Sequence[Checkpoint]) -> list[dict[str, object]]:
    """Return :func:`entries` with neighbours of one stride in a brace range."""
    found: list[dict[str, object]] = []
    start = 0
    while start < len(checkpoints):
        stop, text = _longest_range(checkpoints, start)
        if text is None:
            found += entries(checkpoints[start : start + 1])
            start += 1
        else:
            found.append({"model": text})
            start = stop
    return found


def _longest_range(checkpoints: Sequence[Checkpoint], start: int) -> tuple[int, str | None]:
    """Return the end and text of the longest brace range from ``start``; None where none pays."""
    if start + _FEWEST > len(checkpoints):
        return start, None
    stride = checkpoints[start + 1].step - checkpoints[start].step
    stop = start
    while (
        stop < len(checkpoints)
        and not _unclear(checkpoints[stop])
        and checkpoints[stop].step == checkpoints[start].step + (stop - start) * stride
    ):
        stop += 1
    first = checkpoints[start]
    while stop - start >= _FEWEST:
        wanted = [c.reference for c in checkpoints[start:stop]]
        for text in _ranges(first.reference, first.step, checkpoints[stop - 1].step, stride):
            if expand_braces(text) == wanted:
                return stop, text
        stop -= 1
    return start, None


def _ranges(reference: str, first: int, last: int, stride: int) -> list[str]:
    """Return the first reference with each number that is its step replaced by a brace range."""
    by = "" if stride == 1 else f"..{stride}"
    found = []
    for number in reversed(list(re.finditer(r"\d+", reference))):
        if int(number[0]) == first:
            width = len(number[0]) if number[0] != str(first) else 0
            braces = f"{{{number[0]}..{last:0{width}d}{by}}}"
            found.append(reference[: number.start()] + braces + reference[number.end() :])
    return found


def recipe_text(
    series: Series,
    chosen: Sequence[Checkpoint],
    base: Base,
    target_step: float,
    why_target: str | None,
) -> str:
    """Return the recipe as YAML with comments.

    Args:
        series: what was found.
        chosen: the checkpoints that are observed.
        base: the model that the run started from.
        target_step: the step to extrapolate to.
        why_target: where the target step comes from, when it was not given.
    """
    count = f"{len(chosen)} of {len(series.checkpoints)} checkpoints ({series.layout})"
    lines = [
        f"# {_line(series.source)}: {count}, steps {chosen[0].step} to {chosen[-1].step}",
        f"merge_method: {METHOD}",
        f"base_model: {_scalar(base.reference)}"
        + (f"  # {_line(base.found_in)}; check it" if base.found_in else ""),
        "models:",
        *(line for entry in compact(chosen) for line in _entry(entry)),
        "parameters:",
        f"  target_step: {format_step(target_step)}" + (f"  # {why_target}" if why_target else ""),
    ]
    return "\n".join(lines) + "\n"


def _entry(entry: dict[str, object]) -> list[str]:
    lines = [f"  - model: {_scalar(entry['model'])}"]
    own = entry.get("parameters")
    if own:
        lines.append(f"    parameters: {yaml.safe_dump(own, default_flow_style=True).strip()}")
    return lines


def _scalar(value: object) -> str:
    """Write a string as YAML does, quoted where it must be."""
    text = yaml.safe_dump(value, width=10**6, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _line(text: str) -> str:
    return " ".join(text.split())
