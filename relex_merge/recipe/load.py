"""A recipe: YAML in, checked and expanded mergekit configuration out.

A recipe is plain mergekit YAML. Two things are added, and expanded here before mergekit sees them:
brace ranges in model references (``repo@step_{1..75}``), and ``series:`` in place of ``models:``.
What can be checked without mergekit is checked before its import, which takes seconds.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import yaml

from relex_merge.errors import RelexError
from relex_merge.recipe.braces import MOST, count_braces, expand_braces
from relex_merge.recipe.names import METHOD, TargetStep
from relex_merge.recipe.schema import check_recipe, scalars, unknown
from relex_merge.recipe.yaml_file import check_structure, read_yaml

if TYPE_CHECKING:
    from mergekit.config import MergeConfiguration

RecipeSource: TypeAlias = "str | Path | Mapping[str, Any] | Recipe"


@dataclass(frozen=True)
class Recipe:
    """A recipe after expansion.

    Attributes:
        settings: the YAML structure, brace ranges expanded.
        config: the same as mergekit reads it.
        name: what to call the recipe in messages (its path, or "the recipe").
        path: the file that it was read from, if there is one.
    """

    settings: dict[str, Any]
    config: MergeConfiguration
    name: str
    path: Path | None = None

    @property
    def is_relex(self) -> bool:
        """Whether the recipe asks for the method of this package."""
        return bool(self.config.merge_method == METHOD)

    @property
    def leaves_open(self) -> bool:
        """Whether something is to be chosen from the whole model: target, or predictor."""
        parameters = self.settings.get("parameters") or {}
        open_target = "auto" in scalars(parameters.get("target_step"))
        per_tensor = set(scalars(parameters.get("scope"))) == {"tensor"}
        return open_target or (not per_tensor and "auto" in scalars(parameters.get("predictor")))

    def to_yaml(self) -> str:
        """Return the expanded recipe as mergekit YAML, keys in the order in which they stood."""
        return yaml.safe_dump(self.settings, sort_keys=False, allow_unicode=True, width=100)


def load_recipe(
    source: RecipeSource, *, target_step: TargetStep | None = None, scale: float | None = None
) -> Recipe:
    """Read, expand and check a recipe.

    Args:
        source: a path, the YAML structure, or a recipe that was loaded before.
        target_step: replaces the recipe's own.
        scale: replaces the recipe's own.

    Raises:
        RelexError: the message names the faulty key or parameter.
    """
    name, path = _named(source)
    settings = read_settings(source, target_step=target_step, scale=scale)
    settings = _expanded(settings, name)
    if settings["merge_method"] == METHOD:
        _check_count(settings, name)
    return Recipe(settings, _configuration(settings, name), name, path)


# before mergekit is imported


def read_settings(
    source: RecipeSource, *, target_step: TargetStep | None = None, scale: float | None = None
) -> dict[str, Any]:
    """Read a recipe and check what needs neither mergekit nor the Hub; arguments as above.

    Returns:
        The YAML structure, brace ranges and a series as they stand there.

    Raises:
        RelexError: the message names the faulty key or parameter.
    """
    name, path = _named(source)
    if isinstance(source, Recipe):
        settings = source.settings
    elif isinstance(source, Mapping):
        settings = dict(source)
    else:
        assert path is not None
        settings = read_yaml(path)
    check_structure(settings, name)
    settings = _plain(settings)
    _check_method(settings, name)
    if target_step is not None:
        _require_relex(settings, name, "--target-step")
        settings = _with_parameter(settings, "target_step", target_step)
    if scale is not None:
        _require_relex(settings, name, "--scale")
        settings = _with_parameter(settings, "scale", scale)
    if settings["merge_method"] == METHOD:
        check_recipe(settings, name)
        _check_target(settings, name)
    else:
        _require_relex(settings, name, "series")
    return settings


def _named(source: RecipeSource) -> tuple[str, Path | None]:
    """Return what messages call a recipe, and its file."""
    if isinstance(source, Recipe):
        return source.name, source.path
    if isinstance(source, Mapping):
        return "the recipe", None
    return str(source), Path(source)


def _plain(node: Any) -> Any:
    """Copy a structure with the types that YAML has: numpy's numbers become Python's."""
    if isinstance(node, Mapping):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_plain(entry) for entry in node]
    return node.item() if isinstance(node, np.generic) else node


def _check_method(settings: Mapping[str, Any], name: str) -> None:
    method = settings.get("merge_method")
    if method is None:
        raise RelexError(f"{name} has no merge_method; for this tool it is merge_method: {METHOD}")
    if not isinstance(method, str) or not method.isprintable():
        raise RelexError(f"{name}: merge_method is {method!r}, which is no name; write {METHOD}")
    # A slip in this package's own name is answered without mergekit's list of the others.
    if method != METHOD and difflib.get_close_matches(method, [METHOD], cutoff=0.8):
        raise RelexError(f"{name}: {unknown('merge method', method, [METHOD])}")


def _require_relex(settings: Mapping[str, Any], name: str, what: str) -> None:
    """Refuse what only this package's method knows, in the recipe of another one."""
    method = settings["merge_method"]
    if method != METHOD and (what != "series" or what in settings):
        raise RelexError(f"{what} is for merge_method: {METHOD}; {name} uses {method}")


def _with_parameter(settings: Mapping[str, Any], name: str, value: TargetStep) -> dict[str, Any]:
    """Return the settings with another value; parameters that are no mapping are left as is."""
    parameters = settings.get("parameters") or {}
    if not isinstance(parameters, dict):
        return dict(settings)
    return {**settings, "parameters": {**parameters, name: value}}


def _check_target(settings: Mapping[str, Any], name: str) -> None:
    """Check what the schema of one place cannot say: the target, and models or a series."""
    if "series" in settings and settings.get("models"):
        raise RelexError(f"{name} has both series and models; series stands in place of models")
    listed = "models" in settings or "series" in settings
    if listed and "target_step" not in (settings.get("parameters") or {}):
        raise RelexError(
            f"{name}: parameters.target_step is missing; say which step to extrapolate to "
            "(or give --target-step N)"
        )


def _expanded(settings: dict[str, Any], name: str) -> dict[str, Any]:
    """Expand brace ranges wherever models are listed, and the series."""
    count = sum(map(count_braces, _listed(settings)))
    if count > MOST:
        raise RelexError(f"{name} names {count:,} checkpoints, and a recipe takes {MOST:,} at most")
    expanded: dict[str, Any] = _expand(settings)
    if "series" not in expanded:
        return expanded
    from relex_merge.recipe.series_block import expand_series

    return expand_series(expanded, name)


def _listed(node: Any) -> Iterator[str]:
    """Yield the reference of every list entry that names a model."""
    if isinstance(node, dict):
        for value in node.values():
            yield from _listed(value)
    elif isinstance(node, list):
        for entry in node:
            if isinstance(entry, dict) and isinstance(entry.get("model"), str):
                yield entry["model"]
            yield from _listed(entry)


def _expand(node: Any) -> Any:
    """Replace every list entry whose ``model`` holds a brace range by one entry per model."""
    if isinstance(node, dict):
        return {key: _expand(value) for key, value in node.items()}
    if not isinstance(node, list):
        return node
    made = []
    for entry in map(_expand, node):
        if isinstance(entry, dict) and isinstance(entry.get("model"), str):
            models = expand_braces(entry["model"])
            made += [{**_plain(entry), "model": model} for model in models]  # nothing shared
        else:
            made.append(entry)
    return made


def _check_count(settings: Mapping[str, Any], name: str) -> None:
    models = settings.get("models")
    if models is None:
        return
    if len(models) < 2:
        raise RelexError(
            f"{name}: {len(models)} checkpoint{'s' * (len(models) != 1)} under models; "
            "a trajectory needs at least two besides the base"
        )
    if len(models) > MOST:
        raise RelexError(
            f"{name}: the series has {len(models):,} checkpoints; a recipe takes {MOST:,} at most, "
            "choose some with observe"
        )


# mergekit's own checks


def _configuration(settings: dict[str, Any], name: str) -> MergeConfiguration:
    from mergekit import merge_methods
    from mergekit.config import MergeConfiguration
    from pydantic import ValidationError

    for key in settings:
        if key not in MergeConfiguration.model_fields:
            raise RelexError(f"{name}: {unknown('key', key, MergeConfiguration.model_fields)}")
    methods = [method.spec.name for method in merge_methods.registered_methods()]
    if settings["merge_method"] not in methods:
        said = unknown("merge method", settings["merge_method"], methods)
        raise RelexError(f"{name}: {said}")
    try:
        return MergeConfiguration.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RelexError(f"{name}: {where}: {first['msg']}") from error
    except RuntimeError as error:  # mergekit's own checks
        raise RelexError(f"{name}: {' '.join(str(error).split())}") from error
