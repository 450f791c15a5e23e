"""Addresses of places: ``s3://bucket/run``, ``gs://…``, ``hf://buckets/owner/name/…``, ``memory://…``.

A place is whatever fsspec has a file system for. ``file://`` is another way to write a local path,
and is taken apart here too, so that everything that holds for folders holds for it.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from relex_merge.errors import RelexError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+(?:::[A-Za-z0-9+.\-]+)*)://")
_BROKEN = re.compile(r"(s3a?|gcs|gs|hf|memory|abfss?|az):/(?!/)")  # what pathlib makes of one
_SIGNS = "@+"  # mergekit takes them for a revision and an adapter


def is_place(text: object) -> bool:
    """Tell whether a text is the address of a place that is no local folder."""
    found = _SCHEME.match(text) if isinstance(text, str) else None
    return found is not None and found[1].lower() != "file"


def place_or_path(text: str | Path) -> str | Path:
    """Return what a user wrote: the address of a place as it is, anything else as a path.

    Args:
        text: as it was written; ``file://`` is taken off.

    Raises:
        RelexError: an address went through pathlib, which takes one of its slashes away.
    """
    written = str(text)
    if _BROKEN.match(written):
        raise RelexError(
            f"{written} was an address before it became a path; give it as text, with ://"
        )
    return written if is_place(written) else without_scheme(written)


def without_scheme(text: str) -> Path:
    """Return a path, ``file://`` in front of it taken off. Raises RelexError for another host."""
    found = _SCHEME.match(text)
    if found is None or found[1].lower() != "file":
        return Path(text)
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost"):
        raise RelexError(f"{text} names the machine {parts.netloc}; write file:///path")
    return Path(unquote(parts.path))


def protocol_of(address: str) -> str:
    """Return what stands in front of ``://``, lower case."""
    return address.partition("://")[0].lower()


def normal(address: str) -> str:
    """Return an address without slashes at its end.

    Raises:
        RelexError: it names no folder, or has a sign in it that mergekit reads as something else.
    """
    head, _, path = address.partition("://")
    path = path.rstrip("/")
    if not path:
        raise RelexError(f"{address} names no folder; write {head}://bucket/folder")
    sign = next((sign for sign in _SIGNS if sign in path), None)
    if sign:
        raise RelexError(
            f"{address} has {sign!r} in it, which recipes take for a revision or an adapter; give "
            "the folder another name"
        )
    return f"{head.lower()}://{path}"


def join(address: str, *parts: str) -> str:
    """Return the address of something below a place."""
    return "/".join([address.rstrip("/"), *(part for part in parts if part not in ("", "."))])
