r"""``series:`` in a recipe, in place of ``models:``: the checkpoints of a repo or folder.

    series: {repo: org/name, observe: 1-75, pattern: "step_(\d+)"}

It is expanded before mergekit sees the recipe, as brace ranges are, so that what is saved and
published says which checkpoints were read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relex_merge.checkpoints import find
from relex_merge.checkpoints.observe import select
from relex_merge.errors import RelexError
from relex_merge.hub.download import progress_bars
from relex_merge.recipe.write import entries


def expand_series(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a checked recipe's settings with ``models`` where ``series`` was.

    The block has a ``repo`` (``owner/name[/sub/folder][@revision]``, or a folder) or a ``folder``;
    ``observe`` as ``relex-merge recipe --observe`` takes it, or a list of steps; and ``pattern``, a
    regular expression whose first group is the step.

    Raises:
        RelexError: whatever is wrong with the series.
    """
    block = settings["series"]
    try:
        with progress_bars(False):
            found = find.find(block.get("repo") or block["folder"], block.get("pattern"))
        steps = found.steps
        if block.get("observe") is not None:
            steps = select(steps, _as_text(block["observe"]), found.last_step)
    except RelexError as error:
        raise RelexError(f"{name}: series: {error}") from error
    base = settings.get("base_model")
    wanted = set(steps)
    chosen = [c for c in found.checkpoints if c.step in wanted and c.reference != base]
    items = settings.items()
    return dict(
        (key, value) if key != "series" else ("models", entries(chosen)) for key, value in items
    )


def _as_text(observe: Any) -> str:
    """Return what YAML made of 1-75, 10 or [1, 5, 10], as it was written."""
    return ",".join(map(str, observe)) if isinstance(observe, list) else str(observe)
