"""RELEX for everyday use: extrapolate an RLVR run from its first checkpoints.

Importing this package registers the merge method ``relex`` with mergekit: at once when mergekit
is already imported, else at the moment it is. So ``import relex_merge`` itself stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wrapt import register_post_import_hook

if TYPE_CHECKING:
    from relex_merge.api import evaluate, extrapolate, inspect
    from relex_merge.errors import RelexError
    from relex_merge.publishing.publish_series import publish_series
    from relex_merge.publishing.push import push
    from relex_merge.training.callback import TrajectoryCallback
    from relex_merge.training.stopping import StopWhen

__all__ = [
    "RelexError",
    "StopWhen",
    "TrajectoryCallback",
    "__version__",
    "evaluate",
    "extrapolate",
    "inspect",
    "publish_series",
    "push",
]

_HOMES = {
    "RelexError": "relex_merge.errors",
    "StopWhen": "relex_merge.training.stopping",
    "TrajectoryCallback": "relex_merge.training.callback",
    "evaluate": "relex_merge.api",
    "extrapolate": "relex_merge.api",
    "inspect": "relex_merge.api",
    "publish_series": "relex_merge.publishing.publish_series",
    "push": "relex_merge.publishing.push",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("relex-merge")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


# mergekit has no plug-in entry points; the method registers itself when it is imported.
register_post_import_hook(
    lambda _: import_module("relex_merge.pipeline.merge_method"), "mergekit.merge_methods"
)
