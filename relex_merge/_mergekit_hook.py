"""Registering the method with mergekit without importing mergekit (which takes seconds).

mergekit has no plug-in entry points; ``mergekit.merge_methods.register`` is its public hook. When
mergekit is not imported yet, a finder on ``sys.meta_path`` (Python's own import hook) waits for
``mergekit.merge_methods``, lets it load, registers, and is gone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_HOST = "mergekit.merge_methods"


class _AfterMergekit(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _HOST:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_register(module: ModuleType) -> None:
            # Not before: importlib.util.find_spec may ask without importing.
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            load(module)
            _register()

        spec.loader.exec_module = load_and_register  # type: ignore[method-assign]  # this one spec
        return spec


def _register() -> None:
    import relex_merge.merge_method  # noqa: F401  # registers itself


def register_with_mergekit() -> None:
    """Make ``relex`` available by name in mergekit, now or as soon as mergekit is imported."""
    if _HOST in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _AfterMergekit())
