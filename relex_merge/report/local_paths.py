"""Publishable names for local paths: the one place where a machine's folders leave a text.

A report and a recipe name local checkpoints by absolute folder paths. Before either is published,
each path becomes its last part, ``/home/me/run_a/checkpoint-50`` → ``checkpoint-50``, or as many
trailing parts as it takes to tell it from the other paths of the same output,
``run_a/checkpoint-50`` and ``run_b/checkpoint-50``. POSIX, Windows, UNC, ``~`` and ``file:`` paths
count, whether they are a whole value or stand inside a sentence; URLs, Hub ids and relative paths
stay as they are. Access tokens of the Hub are blanked on the way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import yaml

from relex_merge.errors import blank_secrets
from relex_merge.hub.references import _HOME, _START, is_local_path

# Where one reference ends and the next begins in mergekit's "model+lora".
_JOIN = re.compile(rf"\+(?={_START})")

_BEFORE = r"(?<![\w.~/])"  # neither in a URL or a Hub id, nor after "." or ".."
_LETTERS = r"[^\s\"'`,;()\[\]{}<>|*?/\\]"
# In a sentence a lone "/word" is no path of interest: two parts at least, but for homes and drives.
_EMBEDDED = (
    rf"{_BEFORE}(?:(?:file:/+|{_HOME}[\\/]|[A-Za-z]:[\\/]|\\\\){_LETTERS}+|/{_LETTERS}+/{_LETTERS}+)"
    rf"(?:[\\/]+{_LETTERS}+)*[\\/]?"
)
_EMBEDDED_RE = re.compile(_EMBEDDED)

# The report's only sentences; every other string that begins like a path is one, spaces and all.
_SENTENCES = ("reasons", "reason")

T = TypeVar("T")


def local_names(*sources: object) -> dict[str, str]:
    """Find a publishable name for every local path in ``sources``.

    Args:
        sources: strings, or the lists and dicts that JSON and YAML give.

    Returns:
        path as written → its shortest unambiguous run of trailing parts, joined by "/".
    """
    strings = [item for source in sources for item in _strings(source)]
    paths = {
        part.rstrip("/\\")
        for text, sentence in strings
        if not sentence and is_local_path(text)
        for part in _JOIN.split(text)
        if is_local_path(part)
    }
    known = _pattern(paths)
    for text, sentence in strings:
        if sentence or not is_local_path(text):
            rest = known.sub(" ", text) if known else text
            paths.update(match.rstrip(".:/\\") for match in _EMBEDDED_RE.findall(rest))
    paths.discard("")
    return _shortest_names(paths)


def scrub(value: T, names: Mapping[str, str]) -> T:
    """Replace each local path in ``value`` by its name, and blank each Hub token.

    Args:
        value: a string, or the lists and dicts that JSON and YAML give; never changed in place.
        names: what ``local_names`` found. A path it does not know becomes its last part.
    """
    pattern = _pattern(names, _EMBEDDED)
    assert pattern is not None  # the second argument alone makes one
    clean: T = _scrubbed(value, names, pattern)
    return clean


def _scrubbed(value: Any, names: Mapping[str, str], pattern: re.Pattern[str]) -> Any:
    if isinstance(value, dict):
        return {
            _scrubbed(key, names, pattern): _scrubbed(item, names, pattern)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_scrubbed(item, names, pattern) for item in value]
    if not isinstance(value, str):
        return value
    # A part that is a path as a whole gives its name, which is final: "-/1" holds no path "/1".
    parts = [
        names.get(part.rstrip("/\\")) or pattern.sub(lambda match: _name(match[0], names), part)
        for part in _JOIN.split(value)
    ]
    return blank_secrets("+".join(parts))


def scrub_yaml(text: str, names: Mapping[str, str]) -> str:
    """Scrub a YAML document as values, so that a folder named ``100`` stays a string.

    A document without a local path or token is returned as it is; in any other one the comments go.

    Raises:
        yaml.YAMLError: ``text`` is not one YAML document.
    """
    data = yaml.safe_load(text)
    clean = scrub(data, names)
    if clean == data and scrub(text, names) == text:
        return text
    return yaml.safe_dump(clean, sort_keys=False, allow_unicode=True, width=1000)


def _strings(value: Any, sentence: bool = True) -> Iterator[tuple[str, bool]]:
    """Every string in ``value``, and whether it is prose rather than a single value.

    A string that is handed over bare is a whole text (a card, a file), so prose too.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(key, sentence=False)
            yield from _strings(item, sentence=key in _SENTENCES)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, sentence)
    elif isinstance(value, str):
        yield value, sentence


def _name(match: str, names: Mapping[str, str]) -> str:
    """Name of one matched path; the punctuation that closes a sentence is put back."""
    path = match.rstrip(".:/\\")
    tail = match[len(path) :].strip("/\\")
    return (names.get(path) or "/".join(_parts(path)[-1:]) or "local") + tail


def _pattern(paths: Iterable[str], *more: str) -> re.Pattern[str] | None:
    """One expression for all ``paths``, longest first so that none gives way to its own prefix."""
    known = [rf"{_BEFORE}{re.escape(p)}" for p in sorted(paths, key=len, reverse=True) if p]
    return re.compile("|".join([*known, *more])) if known or more else None


def _parts(path: str) -> tuple[str, ...]:
    """Parts of a path without its anchor; a home is expanded so that both spellings are one."""
    expanded = os.path.expanduser(path)  # noqa: PTH111 - Path would swallow foreign separators
    bare = re.sub(rf"^(?:file:|[A-Za-z]:|{_HOME})", "", expanded)
    return tuple(part for part in re.split(r"[\\/]+", bare) if part not in ("", ".", ".."))


def _shortest_names(paths: Iterable[str]) -> dict[str, str]:
    """For each path the shortest run of trailing parts that no other folder shares."""
    parts = {path: _parts(path) for path in paths}
    folders = set(parts.values())
    names = {}
    for path, own in parts.items():
        size = next(
            (k for k in range(1, len(own)) if not any(f[-k:] == own[-k:] for f in folders - {own})),
            len(own),
        )
        names[path] = "/".join(own[-size:]) or "local"
    return names
