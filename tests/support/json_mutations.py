"""JSON files gone wrong in every way that a seed can choose: nodes replaced, dropped, bytes cut."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

# What may stand where something else was expected.
ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    3,
    2**31,
    2**70,
    10**400,
    1.5,
    1e300,
    float("nan"),
    "",
    " ",
    "..",
    "/",
    "\u0000",
    "\ud800",
    "model-00009-of-00009.safetensors",
    "../model.safetensors",
    "a\\b.safetensors",
    "x" * 5000,
    "3",
    "(",
    "auto",
    "qwen2",
    "float7",
    [],
    {},
    [[]],
    [None],
    [1],
    ["x"],
    {"": ""},
    {"a": {"b": 1}},
    {"rope_type": "yarn"},
    {"rope_type": "default", "factor": "x"},
)


def mutation(value: dict[str, Any], seed: int, number: int) -> bytes:
    """Return a text that was a JSON file of ``value``, the same for the same arguments."""
    chance = random.Random(f"{seed}/{number}")
    if chance.random() < 0.7:
        return json.dumps(_changed(value, chance)).encode("utf-8", "surrogatepass")
    return _torn(json.dumps(value).encode(), chance)


def mutations(value: dict[str, Any], count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield ``count`` texts that were a JSON file of ``value`` before something happened to it."""
    return (mutation(value, seed, number) for number in range(count))


def _changed(value: Any, chance: random.Random) -> Any:
    """Change one node somewhere in the structure."""
    if not isinstance(value, (dict, list)) or not value or chance.random() < 0.15:
        return chance.choice(ODD)
    if isinstance(value, list):
        place = chance.randrange(len(value))
        return [*value[:place], _changed(value[place], chance), *value[place + 1 :]]
    key = chance.choice(list(value))
    what = chance.random()
    if what < 0.15:
        return {k: v for k, v in value.items() if k != key}
    if what < 0.3:
        return {
            (chance.choice(("", "x", "\u0000")) if k == key else k): v for k, v in value.items()
        }
    return {k: _changed(v, chance) if k == key else v for k, v in value.items()}


def _torn(text: bytes, chance: random.Random) -> bytes:
    """Cut, repeat or overwrite bytes, or nest what there is."""
    place = chance.randrange(len(text))
    what = chance.randrange(6)
    if what == 0:
        return text[:place]
    if what == 1:
        return text[:place] + bytes([chance.randrange(256)]) + text[place + 1 :]
    if what == 2:
        return text[:place] + text[place // 2 : place] + text[place:]
    if what == 3:
        return b"\xff\xfe" + text
    if what == 4:
        deep = chance.choice((10, 100_000))
        return b'{"weight_map": ' + b"[" * deep + b"]" * deep + b"}"
    return b'{"a": ' + b"9" * chance.choice((10, 5000)) + b", " + text[1:]
