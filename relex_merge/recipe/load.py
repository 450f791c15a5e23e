"""A recipe: YAML in, checked and expanded mergekit configuration out.

A recipe is plain mergekit YAML. Two things are added, and expanded here before mergekit sees them:
brace ranges in model references (``repo@step_{1..75}``), and ``series:`` in place of ``models:``.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

from relex_merge.errors import RelexError
from relex_merge.recipe.braces import expand_braces
from relex_merge.recipe.names import METHOD
from relex_merge.recipe.series_block import expand_series

if TYPE_CHECKING:
    from mergekit.config import MergeConfiguration

SHARED_PARAMETERS = ("target_step", "rank", "degree", "window", "mode", "predictor", "scope")
MODEL_PARAMETERS = ("step", "role")
DTYPES = ("bfloat16", "float16", "float32", "float64")

RecipeSource: TypeAlias = "str | Path | Mapping[str, Any] | Recipe"


@dataclass(frozen=True)
class Recipe:
    """A recipe after expansion.

    settings: the YAML structure, brace ranges expanded; config: the same as mergekit reads it;
    name: what to call the recipe in messages (its path, or "the recipe").
    """

    settings: dict[str, Any]
    config: MergeConfiguration
    name: str

    @property
    def is_relex(self) -> bool:
        """Whether the recipe asks for the method of this package."""
        return bool(self.config.merge_method == METHOD)

    @property
    def leaves_open(self) -> bool:
        """Whether something is to be chosen from the whole model: target, or predictor."""
        parameters = self.settings.get("parameters") or {}
        open_target = "auto" in _scalars(parameters.get("target_step"))
        per_tensor = set(_scalars(parameters.get("scope"))) == {"tensor"}
        return open_target or (not per_tensor and "auto" in _scalars(parameters.get("predictor")))

    def to_yaml(self) -> str:
        """The expanded recipe as mergekit YAML, keys in the order in which they were written."""
        return yaml.safe_dump(self.settings, sort_keys=False, allow_unicode=True, width=100)


def _expand(node: Any) -> Any:
    """Replace every list entry whose ``model`` holds a brace range by one entry per model."""
    if isinstance(node, dict):
        return {key: _expand(value) for key, value in node.items()}
    if isinstance(node, list):
        return list(itertools.chain.from_iterable(_expand_entry(entry) for entry in node))
    return node


def _expand_entry(entry: Any) -> Iterable[Any]:
    if isinstance(entry, dict) and isinstance(entry.get("model"), str):
        return [{**_expand(entry), "model": model} for model in expand_braces(entry["model"])]
    return [_expand(entry)]


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises RelexError when there is none."""
    try:
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RelexError(f"cannot read the recipe {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RelexError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(node, dict):
        raise RelexError(f"{path} is not a recipe: expected a mapping with merge_method and models")
    return node


def load_recipe(source: RecipeSource, *, target_step: float | None = None) -> Recipe:
    """Read, expand and check a recipe: a path, the YAML structure, or one already loaded.

    ``target_step`` replaces the recipe's own. Raises RelexError naming the faulty key or parameter.
    """
    if isinstance(source, Recipe):
        settings, name = source.settings, source.name
    elif isinstance(source, Mapping):
        settings, name = dict(source), "the recipe"
    else:
        settings, name = read_yaml(Path(source)), str(source)
    settings = _expand(settings)
    if "merge_method" not in settings:
        raise RelexError(f"{name} has no merge_method; for this tool it is merge_method: {METHOD}")
    if "series" in settings:
        _require_relex(settings, name, "series")
        settings = expand_series(settings, name)
    if not isinstance(settings.get("parameters") or {}, dict):
        raise RelexError(f"{name}: parameters must be a mapping, for example {{target_step: 500}}")
    if target_step is not None:
        _require_relex(settings, name, "--target-step")
        settings["parameters"] = {**(settings.get("parameters") or {}), "target_step": target_step}
    if settings["merge_method"] == METHOD:
        _check_relex(settings, name)
    return Recipe(settings, _configuration(settings, name), name)


def _require_relex(settings: dict[str, Any], name: str, what: str) -> None:
    if settings["merge_method"] != METHOD:
        raise RelexError(
            f"{what} is for merge_method: {METHOD}; {name} uses {settings['merge_method']}"
        )


def _configuration(settings: dict[str, Any], name: str) -> MergeConfiguration:
    from mergekit import merge_methods
    from mergekit.config import MergeConfiguration
    from pydantic import ValidationError

    _check_names("key", settings, MergeConfiguration.model_fields, name)
    methods = [method.spec.name for method in merge_methods.registered_methods()]
    _check_names("merge method", [settings["merge_method"]], methods, name)
    try:
        return MergeConfiguration.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RelexError(f"{name}: {where}: {first['msg']}") from error
    except RuntimeError as error:  # mergekit's own checks
        raise RelexError(f"{name}: {error}") from error


def _check_names(what: str, given: Iterable[Any], known: Iterable[str], name: str) -> None:
    known = list(known)
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
            raise RelexError(f"{name}: unknown {what} {key!r}; {hint}")


def _check_relex(settings: dict[str, Any], name: str) -> None:
    """What can be said of a relex recipe before any checkpoint is looked at."""
    parameters = settings.get("parameters") or {}
    _check_names("parameter", parameters, SHARED_PARAMETERS, name)
    models = settings.get("models") or []
    if not settings.get("base_model"):
        raise RelexError(f"{name}: no base_model; name the model that the run started from")
    if not isinstance(models, list):
        raise RelexError(f"{name}: models must be a list of entries, each written - model: NAME")
    for entry in models:
        _check_entry(entry, name)
    for parameter, setting in parameters.items():
        _check_filters(parameter, setting, name)
    if "models" in settings and len(models) < 2:
        raise RelexError(
            f"{name}: {len(models)} checkpoint{'s' * (len(models) != 1)} under models; "
            "a trajectory needs at least two besides the base"
        )
    if "models" in settings and "target_step" not in parameters:
        raise RelexError(
            f"{name}: parameters.target_step is missing; say which step to extrapolate to "
            "(or give --target-step N)"
        )
    for key in ("dtype", "out_dtype"):
        if settings.get(key) and str(settings[key]).removeprefix("torch.") not in DTYPES:
            raise RelexError(f"{name}: {key} is {settings[key]}; it can be {', '.join(DTYPES)}")
    for value in _scalars(parameters.get("target_step")):
        if value != "auto" and (isinstance(value, bool) or as_number(value) is None):
            raise RelexError(f"{name}: target_step is {value!r}, neither a number nor auto")


def _check_entry(entry: Any, name: str) -> None:
    """An entry under models; mergekit would pass over a key that it does not know."""
    if not isinstance(entry, dict) or "model" not in entry:
        raise RelexError(f"{name}: {entry!r} under models; an entry is written - model: NAME")
    _check_names(f"key of {entry['model']}", entry, ("model", "parameters"), name)
    own = entry.get("parameters") or {}
    if not isinstance(own, dict):
        raise RelexError(f"{name}: parameters of {entry['model']} must be a mapping: {{step: N}}")
    _check_names(f"parameter of {entry['model']}", own, MODEL_PARAMETERS, name)


def _check_filters(parameter: str, setting: Any, name: str) -> None:
    """The keys of a filtered setting; a filter under a wrong name would apply to every tensor."""
    for entry in setting if isinstance(setting, list) else [setting]:
        if isinstance(entry, dict):
            _check_names(f"key of {parameter}", entry, ("filter", "value"), name)


def _scalars(setting: Any) -> Iterable[Any]:
    """The values of a mergekit parameter setting: plain, gradient, or filtered."""
    if isinstance(setting, dict):
        yield from _scalars(setting.get("value"))
    elif isinstance(setting, list):
        for entry in setting:
            yield from _scalars(entry)
    elif setting is not None:
        yield setting


def as_number(value: Any) -> float | None:
    """The number that a YAML value is or spells (1e3 is a string to YAML), else None."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
