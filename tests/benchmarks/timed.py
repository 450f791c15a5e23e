"""One run in a process of its own that reports its seconds without start and imports.

python -m tests.benchmarks.timed engine|mergekit RECIPE OUT REPORT.json [BUDGET]
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main() -> None:
    """Command line."""
    kind, recipe, out, report, *budget = sys.argv[1:]
    # Everything that the run imports, first.
    import mergekit.merge
    import transformers
    from mergekit.options import MergeOptions

    import relex_merge.api
    from relex_merge.recipe.load import load_recipe

    assert transformers.AutoConfig is not None
    options = MergeOptions(quiet=True, lora_merge_cache=str(Path(out).parent / "merged"))
    start = time.perf_counter()
    if kind == "engine":
        relex_merge.api.extrapolate(
            recipe,
            out,
            options=options,
            memory_budget=int(budget[0]) if budget else None,
            quiet=True,
            figure=False,
        )
    else:
        mergekit.merge.run_merge(load_recipe(recipe).config, out, options)
    Path(report).write_text(json.dumps({"seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()
