"""What may stand in a relex recipe, checked before mergekit (whose import takes seconds) is needed.

A place that is wrong is named with what stands there and what should: the description of its field.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeAlias, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from relex_merge.errors import RelexError
from relex_merge.recipe.names import DTYPES, ROLES

LONGEST_REFERENCE = 4096  # characters, as of a path
LARGEST_STEP = 2**53  # up to here every integer is a float64
_SCALARS = (bool, int, float, str)
_FILTERED = ("filter", "value")
_SENTENCE = "sentence"  # type of the errors whose message says it all


def check_recipe(settings: Mapping[str, Any], name: str) -> None:
    """Check what can be said of a relex recipe before any checkpoint is looked at.

    Args:
        settings: the recipe; brace ranges and a series may be in it.
        name: what to call it in messages.

    Raises:
        RelexError: a key is not known, or something has the wrong type or value.
    """
    try:
        _Recipe.model_validate(dict(settings))
    except ValidationError as error:
        found = error.errors(include_url=False)
        first = min(found, key=lambda each: each["type"] != "extra_forbidden")  # else in order
        raise RelexError(f"{name}: {_sentence(first, settings)}") from None


def as_number(value: Any) -> float | None:
    """Return the number that a YAML value is or spells (1e3 is a string to YAML), else None."""
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def scalars(setting: Any) -> list[Any]:
    """Return the values of a mergekit parameter setting: plain, gradient, or filtered."""
    if isinstance(setting, Mapping):
        return scalars(setting.get("value"))
    if isinstance(setting, (list, tuple)):
        return [value for entry in setting for value in scalars(entry)]
    return [] if setting is None else [setting]


def unknown(what: str, key: object, known: Iterable[str], place: str = "") -> str:
    """Say that a name is not known (in a place), and which one may have been meant."""
    known = sorted(known)
    near = difflib.get_close_matches(str(key), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    where = f" in {place}" if place else ""
    return f"unknown {what} {str(key)[:80]!r}{where}; {hint}"


# the values


def _require(right: bool) -> None:
    """Refuse a value; what it should be is the description of its field."""
    if not right:
        raise ValueError


def _given(value: Any) -> Any:
    """Something, where the key is there."""
    _require(value is not None)
    return value


def _reference(value: Any) -> Any:
    """A folder or a name on the Hub; mergekit takes a mapping too."""
    if isinstance(value, str):
        _require(0 < len(value) <= LONGEST_REFERENCE and value.isprintable())
    else:
        _require(isinstance(value, Mapping))
    return value


def _step(value: Any) -> Any:
    number = as_number(value)
    _require(value is None or (number is not None and 0 <= number <= LARGEST_STEP))
    return value


def _role(value: Any) -> Any:
    _require(value in (None, *ROLES))
    return value


def _dtype(value: Any) -> Any:
    _require(not value or str(value).removeprefix("torch.") in DTYPES)
    return value


def _setting(value: Any) -> Any:
    """Check a value, a gradient, or either of them under filters, as mergekit takes them."""
    entries = value if isinstance(value, list) else [value]
    if not any(isinstance(entry, dict) for entry in entries):
        _require(value is None or all(isinstance(entry, _SCALARS) for entry in entries))
        return value
    for entry in entries:
        _require(isinstance(entry, dict))
        for key in entry:
            if key not in _FILTERED:  # a filter under a wrong name would apply to every tensor
                said = unknown("key", key, _FILTERED, "a filtered parameter")
                raise PydanticCustomError(_SENTENCE, "{said}", {"said": said})
        _require(entry.get("filter") is None or isinstance(entry["filter"], str))
        inner = entry.get("value")
        _require(
            all(isinstance(v, _SCALARS) for v in (inner if isinstance(inner, list) else [inner]))
        )
    return value


def _target(value: Any) -> Any:
    for target in scalars(_setting(value)):
        if target != "auto":
            _step(target)
    return value


Reference: TypeAlias = Annotated[Any, AfterValidator(_reference)]
Setting: TypeAlias = Annotated[
    Any,
    AfterValidator(_setting),
    Field(description="a value, a list of values, or a list of {filter: NAME, value: VALUE}"),
]
_ONE_OF = f"one of {', '.join(DTYPES)}"


# the places


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Own(_Strict):
    step: Annotated[Any, AfterValidator(_step)] = Field(None, description="a number from 0 to 2^53")
    role: Annotated[Any, AfterValidator(_role)] = Field(None, description=" or ".join(ROLES))


class _Entry(_Strict):
    model: Reference = Field(description="a folder or a name on the Hub")
    parameters: _Own | None = Field(None, description="a mapping: {step: N}")


class _Series(_Strict):
    repo: str | None = Field(None, description="a name on the Hub, or a folder")
    folder: str | None = Field(None, description="a folder")
    observe: Any = Field(None)
    pattern: str | None = Field(None, description="a regular expression in quotes")

    @model_validator(mode="after")
    def _one_source(self) -> _Series:
        if bool(self.repo) == bool(self.folder):
            raise PydanticCustomError(
                _SENTENCE,
                "series needs one repo or folder, for example series: "
                "{{repo: org/name, observe: 1-75}}",
            )
        return self


class _Parameters(_Strict):
    target_step: Annotated[Any, AfterValidator(_target)] = Field(
        None, description="a number from 0 to 2^53, or auto"
    )
    rank: Setting = None
    degree: Setting = None
    window: Setting = None
    mode: Setting = None
    predictor: Setting = None
    scope: Setting = None
    anchor: Setting = None
    scale: Setting = None


class _Recipe(_Strict):
    merge_method: str
    base_model: Reference = Field(
        description="the model that the run started from: a folder, or a name on the Hub"
    )
    models: list[_Entry] | None = Field(
        None, description="a list of entries, each written - model: NAME"
    )
    series: Annotated[_Series | None, AfterValidator(_given)] = Field(
        None, description="a mapping, for example {repo: org/name, observe: 1-75}"
    )
    parameters: _Parameters | None = Field(
        None, description="a mapping, for example {target_step: 500}"
    )
    dtype: Annotated[Any, AfterValidator(_dtype)] = Field(None, description=_ONE_OF)
    out_dtype: Annotated[Any, AfterValidator(_dtype)] = Field(None, description=_ONE_OF)
    # mergekit's own, which mergekit checks
    slices: Any = None
    modules: Any = None
    tokenizer: Any = None
    tokenizer_source: Any = None
    chat_template: Any = None


KEYS = tuple(_Recipe.model_fields)
PARAMETERS = tuple(_Parameters.model_fields)


# what is said of a place that is wrong


def _sentence(error: ErrorDetails, settings: Mapping[str, Any]) -> str:
    """Say what is wrong in one sentence, with the remedy."""
    loc = error["loc"]
    if error["type"] == _SENTENCE:
        return error["msg"]
    if error["type"] == "extra_forbidden":
        known = _model_at(loc[:-1]).model_fields
        return unknown("key", loc[-1], known, _place(loc[:-1], settings))
    field = [part for part in loc if isinstance(part, str)][-1]
    wanted = _model_at(loc[: loc.index(field)]).model_fields[field].description
    place = _place(loc, settings)
    if error["type"] == "missing":
        return f"{place} is missing; it is {wanted}"
    what = "it" if loc[-1] == field else field
    return f"{place} is {error['input']!r:.80}; {what} must be {wanted}"


def _model_at(loc: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the schema of the mapping at a place."""
    model: type[BaseModel] = _Recipe
    for part in loc:
        if isinstance(part, str):
            model = next(kind for kind in _kinds(model.model_fields[part].annotation))
    return model


def _kinds(annotation: Any) -> Iterable[type[BaseModel]]:
    """Yield the schemas in a field's type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _kinds(part)


def _place(loc: tuple[int | str, ...], settings: Mapping[str, Any]) -> str:
    """Return what a place is called: "rank", "pattern of series", "step of org/run@step_50"."""
    *outer, last = loc or ("",)
    if len(loc) < 2 or outer == ["parameters"]:
        return str(last)
    if loc[0] != "models":
        return f"{last} of {outer[-1]}"
    number = loc[1]
    assert isinstance(number, int)  # models is a list
    entry = settings["models"][number]
    label = entry.get("model") if isinstance(entry, dict) else None
    named = isinstance(label, str) and label.isprintable()
    whole = f"{label:.200}" if named else f"entry {number + 1} under models"
    return f"{last} of {whole}" if loc[2:] else whole
