"""A recipe's YAML, read strictly: what is ambiguous, endless or no text is refused with its line.

A plain loader takes the last of two equal keys, writes aliases out until the memory is full, and
ends in errors of its own on deep or cyclic files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

import numpy as np
import yaml

from relex_merge.errors import RelexError
from relex_merge.recipe.advice import no_recipe

T = TypeVar("T")

LONGEST = 2_000_000  # bytes of a file: 10,000 checkpoints listed one by one take half of that
DEEPEST = 100  # levels of nesting
_DIGITS = 30
_LARGEST = 10**_DIGITS
MOST_NODES = 200_000  # mappings, lists, keys and values, with aliases written out

_TAG = "tag:yaml.org,2002:"
_PLAIN = {f"{_TAG}{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null")}


class _RefusedError(Exception):
    """What this file refuses although it is YAML; the message begins with the line."""

    def __init__(self, what: str, at: Any) -> None:
        mark = getattr(at, "start_mark", at)  # of a node or an event
        super().__init__(f"line {mark.line + 1}: {what}")


class _Loader(yaml.SafeLoader):
    """The safe loader, with every key once, and nothing but plain values."""

    yaml_constructors = {  # noqa: RUF012  # as in the class above
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag in _PLAIN
    }
    yaml_implicit_resolvers = {  # noqa: RUF012  # a date is text here
        first: [(tag, pattern) for tag, pattern in known if tag != f"{_TAG}timestamp"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node, unless it lies too deep for the calls that this takes."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise _RefusedError(f"nested more than {DEEPEST} levels deep", self.peek_event())  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def fetch_flow_collection_start(self, kind: Any) -> None:
        """Read a bracket; the scanner looks far ahead, so that the depth is checked here too."""
        if self.flow_level >= DEEPEST:
            raise _RefusedError(f"nested more than {DEEPEST} levels deep", self.get_mark())
        super().fetch_flow_collection_start(kind)

    def construct_document(self, node: yaml.Node) -> Any:
        """Construct what a whole file says."""
        check_extent(node, _children, _RefusedError)
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping whose keys are texts, each of them there once."""
        lines: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.tag not in (f"{_TAG}str", f"{_TAG}merge"):
                raise _RefusedError(f"the key {_shown(key)} is no text; put it in quotes", key)
            if key.value in lines:
                first = lines[key.value]
                raise _RefusedError(f"{key.value} is there twice, first in line {first}", key)
            lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a value; one that does not fit its tag is a fault of the file."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            tag = node.tag.rpartition(":")[2]
            raise _RefusedError(f"{_shown(node)} is no {tag}", node) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        RelexError: there is none, or it says something twice, is nested too deeply, cyclic, or far
            longer with its aliases written out than any recipe.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(LONGEST + 1)
    except OSError as error:
        raise RelexError(no_recipe(path, error)) from error
    if len(data) > LONGEST:
        raise RelexError(f"{path} is not a recipe: it is longer than {LONGEST:,} bytes")
    try:
        node = yaml.load(data.decode("utf-8"), _Loader)
    except _RefusedError as error:
        raise RelexError(f"{path}, {error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RelexError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(node, dict):
        raise RelexError(f"{path} is not a recipe: expected a mapping with merge_method and models")
    return node


def check_extent(
    root: T, children: Callable[[T], Iterable[T]], refuse: Callable[[str, T], Exception]
) -> None:
    """Refuse a structure that is cyclic, too deep, or too large with its aliases written out.

    Args:
        root: the structure.
        children: the nodes right below a node.
        refuse: makes the error from what is wrong and the node where it was noticed.
    """
    known: dict[int, tuple[int, int]] = {}  # node → nodes in it, levels in it
    above: set[int] = set()

    def measure(node: T) -> tuple[int, int]:
        if id(node) in above:
            raise refuse("cyclic, a part contains itself", node)
        if id(node) not in known:
            if len(above) >= DEEPEST:
                raise refuse(f"nested more than {DEEPEST} levels deep", node)
            above.add(id(node))
            below = [measure(child) for child in children(node)]
            above.remove(id(node))
            count = 1 + sum(count for count, _ in below)
            if count > MOST_NODES:
                raise refuse(f"more than {MOST_NODES:,} values, with aliases written out", node)
            known[id(node)] = count, 1 + max((levels for _, levels in below), default=0)
        if len(above) + known[id(node)][1] > DEEPEST:
            raise refuse(f"nested more than {DEEPEST} levels deep", node)
        return known[id(node)]

    measure(root)


def check_structure(settings: Mapping[str, Any], name: str) -> None:
    """Refuse settings that no YAML file of plain values could hold.

    Raises:
        RelexError: the settings are cyclic, too deep or too large, or hold anything but mappings
            with texts as keys, lists, texts and numbers.
    """

    def children(node: Any) -> Iterable[Any]:
        if isinstance(node, Mapping):
            for key in node:
                if not isinstance(key, str):
                    raise RelexError(f"{name}: the key {key!r} is no text")
            return node.values()
        if isinstance(node, (list, tuple)):
            return node
        if not isinstance(node, (str, bool, int, float, np.generic, NoneType)):
            raise RelexError(
                f"{name} holds a {type(node).__name__}, and a recipe holds mappings, lists, texts "
                "and numbers"
            )
        if isinstance(node, int) and abs(node) > _LARGEST:
            raise RelexError(f"{name} holds an integer of more than {_DIGITS} digits")
        return ()

    check_extent(settings, children, lambda what, node: RelexError(f"{name} is {what}"))


def _children(node: yaml.Node) -> Iterable[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else ()


def _shown(node: yaml.Node) -> str:
    return repr(node.value[:40]) if isinstance(node, yaml.ScalarNode) else "in brackets"
