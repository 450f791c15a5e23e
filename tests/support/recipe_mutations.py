"""Recipes gone wrong in every way that a seed can choose, here and in the endurance suite.

Structures are changed node by node (wrong types, missing and unknown keys, odd numbers, endless
brace ranges), and texts byte by byte (torn, repeated keys, aliases, cycles, depth, odd tags).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import yaml

MODELS = [{"model": f"org/run@step_{step}"} for step in (1, 2, 4)]
RECIPES: tuple[dict[str, Any], ...] = (
    {
        "merge_method": "relex",
        "base_model": "org/base",
        "models": [*MODELS, {"model": "org/run@last", "parameters": {"step": 9}}],
        "parameters": {"target_step": 20, "rank": 1, "window": 3, "mode": "extrapolate"},
        "dtype": "bfloat16",
        "out_dtype": "bfloat16",
    },
    {
        "merge_method": "relex",
        "base_model": "org/base",
        "models": [{"model": "org/run@step_{1..75..5}"}],
        "parameters": {
            "target_step": [{"filter": "mlp", "value": 50}, {"value": [100, 200]}],
            "predictor": "auto",
            "scope": "module",
        },
    },
    {
        "merge_method": "relex",
        "base_model": "org/base",
        "series": {"folder": "/nowhere/run", "observe": "1-75", "pattern": r"step_(\d+)"},
        "parameters": {"target_step": "auto"},
    },
    {
        "merge_method": "relex",
        "base_model": "org/base",
        "slices": [{"sources": [{**model, "layer_range": [0, 2]} for model in MODELS]}],
        "parameters": {"target_step": 20},
        "tokenizer": {"source": "base", "tokens": {"<a>": {"source": "org/base"}}},
        "chat_template": "chatml",
    },
    {
        "merge_method": "ties",
        "base_model": "org/base",
        "models": [{"model": "a/b", "parameters": {"weight": 0.5, "density": [1, 0.5]}}],
        "parameters": {"normalize": True},
        "tokenizer_source": "union",
    },
)
# What may stand where something else was expected.
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 2**64, 10**400, float("nan"), float("inf"), -float("inf")),
    *("", " ", "auto", "soon", "1e3", "50", "a@b@c", "a+b+c", "@", "+", "~nobody/x", "/", "\n"),
    *("x" * 10_000, "\u0000", "é", "{1..3}", "{1..10..0}", "a{5..1}b{1..2}", "{01..3000}"),
    *("{1..1000000}", "{1..1000000000}", "{1..2000}{1..2000}", "{" + 40 * "9" + "..1}"),
    *("{1..1}" * 600, "{-5..5}", "{1..2", "torch.float32", "relex", "relexx", "linear", "no"),
    *([], {}, [[]], [None], [1, "a", {}], {"a": 1}, {"value": 3}, [{"filter": 3, "value": {}}]),
    *({"model": "a/b"}, [{"model": "a/b@step_{1..500}"}], {"model": {"path": "a/b"}}, "2024-05-01"),
)
KEYS = ("merge_method", "models", "modles", "step", "role", "filter", "value", "series", "", "x y")
# Texts that a plain loader would die of, or read in silence.
_TEN = "[" + ",".join(10 * ["*{0}"]) + "]"
BOMB = "a: &a [x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} {_TEN.format(chr(97 + i))}\n" for i in range(12)
)
MERGE_BOMB = "a: &a {k: 1}\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} {{<<: {_TEN.format(chr(97 + i))}}}\n" for i in range(12)
)
BLOCKS = (
    BOMB,
    MERGE_BOMB,
    "loop: &loop [*loop]\n",
    "loop: &loop {a: *loop}\n",
    "parameters: &p {target_step: 9, rank: [*p]}\n",
    "deep: " + "[" * 90 + "]" * 90 + "\n",
    "deep: " + "[" * 5000 + "]" * 5000 + "\n",
    "deep: " + "{a: " * 300 + "1" + "}" * 300 + "\n",
    "merge_method: relex\n",
    "base_model: other/base\n",
    "parameters: {target_step: 9, target_step: 10}\n",
    "1: 2\n",
    "null: 2\n",
    "? [a, b]\n: c\n",
    "when: 2024-99-99\n",
    "parameters: {target_step: !!int foo}\n",
    "parameters: {target_step: !!set {a, b}}\n",
    "parameters: {target_step: !!binary aGk=}\n",
    "parameters: {rank: !!python/name:os.system }\n",
    "parameters: {rank: *nothing}\n",
    "dtype: " + "9" * 5000 + "\n",
    "--- \nmerge_method: linear\n",
    "%YAML 9.9\n---\n",
    "\ttabs: 1\n",
)


def mutated_recipe(seed: int, number: int) -> bytes:
    """Return a file that was a recipe, the same for the same arguments."""
    chance = random.Random(f"{seed}/{number}")
    recipe: Any = chance.choice(RECIPES)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        recipe = _changed(recipe, chance)
    if chance.random() < 0.6:
        return _text(recipe)
    return _torn(_text(chance.choice(RECIPES)), chance)


def mutated_recipes(count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield ``count`` files that were recipes before something happened to them.

    The same seed gives the same files; a larger count begins with those of a smaller one.
    """
    return (mutated_recipe(seed, number) for number in range(count))


def _text(recipe: Any) -> bytes:
    return yaml.safe_dump(recipe, sort_keys=False).encode()


def _changed(value: Any, chance: random.Random) -> Any:
    """Change one node somewhere in a structure."""
    if not isinstance(value, (dict, list)) or not value or chance.random() < 0.1:
        return chance.choice(ODD)
    if isinstance(value, list):
        place = chance.randrange(len(value))
        if chance.random() < 0.15:
            return [*value, chance.choice(value)]
        return [*value[:place], _changed(value[place], chance), *value[place + 1 :]]
    key = chance.choice(list(value))
    what = chance.random()
    if what < 0.3:
        rest = {k: v for k, v in value.items() if k != key}
        added = chance.choice(
            ({}, {chance.choice(KEYS): value[key]}, {chance.choice(KEYS): ODD[0]})
        )
        return {**rest, **added}
    return {k: _changed(v, chance) if k == key else v for k, v in value.items()}


def _torn(text: bytes, chance: random.Random) -> bytes:
    """Cut, repeat, overwrite or add to a text."""
    place = chance.randrange(len(text))
    line = text[text.rfind(b"\n", 0, place) + 1 : text.find(b"\n", place) + 1]
    block = chance.choice(BLOCKS).encode()
    return chance.choice(
        (
            text[:place],
            text[:place] + bytes([chance.randrange(256)]) + text[place + 1 :],
            text[:place] + text[place // 2 : place] + text[place:],
            text.replace(line, line + line, 1),
            chance.choice((b"\xff\xfe", b"\xef\xbb\xbf", b"\x00", b"- ", b"? ")) + text,
            text + block,
            block + text,
        )
    )
