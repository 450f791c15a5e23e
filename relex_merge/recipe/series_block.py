"""``series:`` in a recipe, in place of ``models:``: the checkpoints of a repo or folder.

    series: {repo: org/name, observe: 1-75, pattern: "step_(\\d+)"}

It is expanded before mergekit sees the recipe, as brace ranges are, so that what is saved and
published says which checkpoints were read.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from relex_merge.checkpoints import find
from relex_merge.errors import RelexError

KEYS = ("repo", "folder", "observe", "pattern")


def expand_series(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The recipe's settings with ``models`` where ``series`` was.

    repo: a Hub repo (``owner/name[/sub/folder][@revision]``) or a folder; folder: a folder;
    observe: as for ``relex-merge recipe --observe``, a list of steps too; pattern: a regular
    expression whose first group is the step. Raises RelexError naming the faulty key, and for
    whatever is wrong with the series.
    """
    pass
    from relex_merge.checkpoints.observe import select
    from relex_merge.hub.download import progress_bars
    from relex_merge.recipe.write import entries

    block = settings["series"]
    source = _checked(settings, block, name)
    try:
        with progress_bars(False):
            found = find.find(source, block.get("pattern"))
        steps = found.steps
        if block.get("observe") is not None:
            steps = select(steps, _as_text(block["observe"]), found.last_step)
    except RelexError as error:
        raise RelexError(f"{name}: series: {error}") from error
    base = settings.get("base_model")
    chosen = [c for c in found.checkpoints if c.step in set(steps) and c.reference != base]
    items = settings.items()
    places = (
        (key, value) if key != "series" else ("models", entries(chosen)) for key, value in items
    )
    return dict(places)


def _checked(settings: Mapping[str, Any], block: Any, name: str) -> str:
    """Where the series is."""
    example = "series: {repo: org/name, observe: 1-75}"
    if not isinstance(block, dict):
        raise RelexError(f"{name}: series must be a mapping, for example {example}")
    for key in block:
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(KEYS)}"
            raise RelexError(f"{name}: unknown key of series {key!r}; {hint}")
    if settings.get("models"):
        raise RelexError(f"{name} has both series and models; series stands in place of models")
    sources = [block[key] for key in ("repo", "folder") if block.get(key)]
    if len(sources) != 1 or not isinstance(sources[0], str):
        raise RelexError(f"{name}: series needs one repo or folder, for example {example}")
    pattern = block.get("pattern")
    if pattern is not None and not isinstance(pattern, str):
        raise RelexError(f"{name}: pattern of series is {pattern!r}; it must be a string in quotes")
    return str(sources[0])


def _as_text(observe: Any) -> str:
    """What YAML made of 1-75, 10 or [1, 5, 10], as it was written."""
    return ",".join(map(str, observe)) if isinstance(observe, list) else str(observe)
