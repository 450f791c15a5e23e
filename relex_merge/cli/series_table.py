"""What was found, as a table for people and as JSON for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from relex_merge.checkpoints.series import Base, Checkpoint, Series
from relex_merge.formatting import size

_ROWS = 40  # of a longer table the ends are shown
_HEAD = ("step", "reference", "sha", "size", "dtype", "date")


def render(series: Series, chosen: Sequence[Checkpoint], base: Base) -> str:
    """Return a head, one row for each observed checkpoint, and the notes."""
    count, steps = len(series.checkpoints), series.steps
    lines = [
        f"{series.source}: {count} checkpoint{'s' * (count != 1)} ({series.layout}), steps "
        f"{steps[0]} to {steps[-1]}; observed: {len(chosen)}",
        f"base: {base.reference}" + (f" (proposed by {base.found_in})" if base.found_in else ""),
    ]
    rows = [_row(checkpoint) for checkpoint in chosen]
    if len(rows) > _ROWS:
        more = f"… {len(rows) - _ROWS} more (--json lists all)"
        half = _ROWS // 2
        rows = [*rows[:half], ("", more, "", "", "", ""), *rows[-half:]]
    widths = [max(len(row[i]) for row in (_HEAD, *rows)) for i in range(len(_HEAD))]
    lines += [_aligned(row, widths) for row in (_HEAD, *rows)]
    lines += [f"note: {note}" for note in series.notes]
    return "\n".join(lines)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    """Align numbers to the right, words to the left."""
    cells = [
        cell.rjust(width) if name in ("step", "size") else cell.ljust(width)
        for name, cell, width in zip(_HEAD, row, widths, strict=True)
    ]
    return "  ".join(cells).rstrip()


def _row(checkpoint: Checkpoint) -> tuple[str, ...]:
    return (
        str(checkpoint.step),
        checkpoint.reference,
        checkpoint.sha[:8] if checkpoint.sha else "–",
        "–" if checkpoint.size is None else size(checkpoint.size),
        checkpoint.dtype or "–",
        checkpoint.date[:16].replace("T", " ") if checkpoint.date else "–",
    )


def as_json(
    series: Series, chosen: Sequence[Checkpoint], base: Base, target_step: float, recipe: str
) -> dict[str, Any]:
    """Return all that the table says, every checkpoint, and the text of the recipe."""
    return {
        "source": series.source,
        "layout": series.layout,
        "base": {"reference": base.reference, "found_in": base.found_in},
        "last_step": series.last_step,
        "target_step": target_step,
        "observed": [checkpoint.step for checkpoint in chosen],
        "checkpoints": [asdict(checkpoint) for checkpoint in series.checkpoints],
        "notes": list(series.notes),
        "recipe": recipe,
    }
