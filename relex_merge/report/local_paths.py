"""Publishable names for local paths: the one place where a machine's folders leave a text.

A report and a recipe name local checkpoints by folder paths. Before either is published, each path
becomes its last part, ``/home/me/run_a/checkpoint-50`` → ``checkpoint-50``, or as many trailing
parts as it takes to tell it from the other paths of the same output, ``run_a/checkpoint-50`` and
``run_b/checkpoint-50``; the folder that bears a user's name never stays.

Paths count that are absolute on any system (POSIX, Windows, UNC, ``~``, ``file:``) or begin with
``./`` or ``../``, whether they are a whole value or stand inside a sentence. Where a model is named
(``model: runs/me/checkpoint-5``) a path counts too that is there on this disk, that is the end of
one of the absolute paths, or that has more parts than a repo id and is of no repo that was read.
URLs and Hub references stay as they are. Access tokens are blanked on the way.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from relex_merge.errors import blank_secrets
from relex_merge.hub.references import HOME, ROOT, hub_id, hub_reference, is_local_path

T = TypeVar("T")

_HERE = r"\.{1,2}[\\/]"
_RELATIVE = re.compile(rf"{_HERE}[^\n]+")
# Where one reference ends and the next begins in mergekit's "model+lora".
_JOIN = re.compile(rf"(?<!\+)\+(?={ROOT}|{_HERE}|[A-Za-z0-9][\w.\-]*/)")

_BEFORE = r"(?<![\w.~/)\]}])"  # not in a URL or a Hub id, nor after "." or "..", nor in "(v1)/run"
_LETTER = r"[^\s\"'`,;()\[\]{}<>|*?/\\]"
_PART = rf"(?:{_LETTER}|\([^\s()/\\]*\)|\[[^\s\[\]/\\]*\])+"
# In a sentence a lone "/word" is no path of interest: two parts at least, but for homes and drives.
_EMBEDDED = (
    rf"{_BEFORE}(?:(?:file:/+|{HOME}[\\/]|[A-Za-z]:[\\/]|\\\\|(?:{_HERE})+){_PART}|/{_PART}/{_PART})"
    rf"(?:[\\/]+{_PART})*[\\/]?"
)
_EMBEDDED_RE = re.compile(_EMBEDDED)

# The folder of a user, whose name is nobody's business.
_USERS = re.compile(r"^(?:/(?:home|Users)/[^/]+|/root|[A-Za-z]:/Users/[^/]+)(?=/|$)")

# The report's only sentences; every other string that begins like a path is one, spaces and all.
_SENTENCES = ("reasons", "reason", "says", "cannot_see", "sentences")
# The keys under which recipes, reports and configurations name a model.
_MODELS = ("model", "base_model", "lora", "source", "tokenizer_source", "reference", "path")


@dataclass(frozen=True)
class _Text:
    """A string: prose, a value, or the value of a key that names a model."""

    text: str
    sentence: bool
    model: bool = False


def local_names(*sources: object) -> dict[str, str]:
    """Find a publishable name for every local path in ``sources``.

    Args:
        sources: strings, or the lists and dicts that JSON and YAML give.

    Returns:
        path as written → its shortest unambiguous run of trailing parts, joined by "/".
    """
    strings = [item for source in sources for item in _strings(source)]
    repos = {hub_reference(text).repo for source in sources for text in _read_from_hub(source)}
    values = {
        (part, item.model)
        for item in strings
        if not item.sentence
        for part in _JOIN.split(item.text)
    }
    paths = {part.rstrip("/\\") for part, _ in values if _is_path(part)}
    absolute = [_parts(path) for path in paths if is_local_path(path)]
    paths |= {
        part.rstrip("/\\")
        for part, model in values
        if model and _is_local_model(part, absolute, repos)
    }
    known = _pattern(paths)
    for item in strings:
        if item.sentence or not _is_path(item.text):
            rest = known.sub(" ", item.text) if known else item.text
            paths.update(match.rstrip(".:/\\") for match in _EMBEDDED_RE.findall(rest))
    paths.discard("")
    return _shortest_names(paths)


def _is_path(text: str) -> bool:
    return is_local_path(text) or _RELATIVE.fullmatch(text) is not None


def _is_local_model(text: str, absolute: Iterable[tuple[str, ...]], repos: set[str]) -> bool:
    """Tell whether a model is named by a relative path.

    Args:
        text: what names it.
        absolute: parts of the absolute paths of the same output.
        repos: those that the output was read from.
    """
    if "/" not in text.strip("/") or "\n" in text or "://" in text:
        return False
    place = hub_reference(text)
    if place.repo in repos:
        return False
    parts = _parts(text)
    return (
        _is_there(text)
        or bool(place.folder)
        or hub_id(text) is None
        or any(path[-len(parts) :] == parts for path in absolute)
    )


def _is_there(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # the name is too long, or none
        return False


def scrub(value: T, names: Mapping[str, str]) -> T:
    """Replace each local path in ``value`` by its name, and blank each secret.

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

    Args:
        text: one YAML document.
        names: as for :func:`scrub`.

    Raises:
        yaml.YAMLError: ``text`` is not one YAML document.
    """
    data = yaml.safe_load(text)
    clean = scrub(data, names)
    if clean == data and scrub(text, names) == text:
        return text
    return yaml.safe_dump(clean, sort_keys=False, allow_unicode=True, width=1000)


def _strings(value: Any, sentence: bool = True, key: Any = None) -> Iterator[_Text]:
    """Yield every string in ``value``; one handed over bare is a whole text (a card, a file)."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _strings(name, sentence=False)
            yield from _strings(item, sentence=name in _SENTENCES, key=name)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, sentence, key)
    elif isinstance(value, str):
        model = isinstance(key, str) and (key in _MODELS or key.endswith("name_or_path"))
        yield _Text(value, sentence, model and not sentence)


def _read_from_hub(value: Any) -> Iterator[str]:
    """Yield the references in a report that were read at a commit of the Hub."""
    if isinstance(value, dict):
        if isinstance(value.get("reference"), str) and value.get("sha"):
            yield value["reference"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _read_from_hub(item)


def _name(match: str, names: Mapping[str, str]) -> str:
    """Return the name of a matched path; punctuation that closes a sentence is put back."""
    path = match.rstrip(".:/\\")
    tail = match[len(path) :].strip("/\\")
    return (names.get(path) or "/".join(_parts(path, public=True)[-1:]) or "local") + tail


def _pattern(paths: Iterable[str], *more: str) -> re.Pattern[str] | None:
    """Return an expression for all paths, longest first: none gives way to its own prefix."""
    known = [rf"{_BEFORE}{re.escape(p)}" for p in sorted(paths, key=len, reverse=True) if p]
    return re.compile("|".join([*known, *more])) if known or more else None


def _plain(path: str) -> str:
    """Return a path with "/" between its parts, without detours; what is there made absolute."""
    if not is_local_path(path) and _is_there(path):
        path = str(Path(path).resolve())
    expanded = os.path.expanduser(path)  # noqa: PTH111 - Path would swallow foreign separators
    slashes = re.sub(r"^file:/+", "/", expanded).replace("\\", "/")
    return posixpath.normpath(re.sub("/+", "/", slashes))


def _parts(path: str, *, public: bool = False) -> tuple[str, ...]:
    """Return the parts of a path below its root; if public, below the folder of a user."""
    plain = _USERS.sub("", _plain(path)) if public else _plain(path)
    bare = re.sub(rf"^(?:[A-Za-z]:|{HOME})", "", plain)
    return tuple(part for part in bare.split("/") if part not in ("", ".", ".."))


def _shortest_names(paths: Iterable[str]) -> dict[str, str]:
    """Return for each path the shortest run of trailing parts that no other folder shares."""
    whole = {path: _parts(path) for path in paths}
    parts = {}
    for path, own in whole.items():
        # The end of an absolute path is the same folder.
        same = (q for q in whole if is_local_path(q) and whole[q][-len(own) :] == own)
        parts[path] = _parts(path if is_local_path(path) else next(same, path), public=True)
    folders = set(parts.values())
    names = {}
    for path, own in parts.items():
        size = next(
            (k for k in range(1, len(own)) if not any(f[-k:] == own[-k:] for f in folders - {own})),
            len(own),
        )
        names[path] = "/".join(own[-size:]) or "local"
    return names
