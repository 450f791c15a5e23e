"""The header of a safetensors file, checked by the format's own rules.

A file begins with the length of its header (8 bytes, little-endian) and the header, a JSON object
that gives dtype, shape and place of every tensor; the numbers follow. The rules are those of the
``safetensors`` library, which can only be asked about a whole file that it maps into memory:
nothing that it refuses is accepted here. Stricter here: the header begins with ``{``, as the
format's description has it, names differ, entries hold nothing but the three known keys, and a
tensor has at most ``MOST_DIMENSIONS``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from relex_merge.errors import RelexError
from relex_merge.weights.source import DTYPES, TensorInfo

LENGTH_BYTES = 8  # of the number before the header
LONGEST_HEADER = 100_000_000  # bytes
MOST_DIMENSIONS = 64  # torch's own limit
LONGEST_SHOWN = 100  # characters of a name in a message
_LARGEST = 2**64 - 1  # shapes, offsets and their products are unsigned 64-bit numbers
_KEYS = {"dtype", "shape", "data_offsets"}


class HeaderError(ValueError):
    """A file is not a whole safetensors file; the message says what is wrong with it."""


@dataclass(frozen=True)
class Entry:
    """One tensor of a header. start: offset in bytes from the beginning of the file."""

    info: TensorInfo
    start: int


def header_length(prefix: bytes, size: int) -> int:
    """Return the length of the header in bytes.

    Args:
        prefix: the first ``LENGTH_BYTES`` bytes of the file, or all that it has.
        size: bytes of the file.

    Raises:
        HeaderError: the file is too short for its header, or the header longer than any may be.
    """
    if len(prefix) < LENGTH_BYTES:
        raise HeaderError(f"is not a safetensors file: it has {size} bytes")
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if length > LONGEST_HEADER:
        raise HeaderError(f"is not a safetensors file: it announces a header of {length:,} bytes")
    if length > size - LENGTH_BYTES:
        raise HeaderError(
            f"is truncated or corrupt: {size:,} bytes, and its header alone has {length:,}"
        )
    return length


def parse_header(text: bytes, size: int, label: str) -> dict[str, Entry]:
    """Return the tensors of a file by name, in the order of their bytes.

    Args:
        text: the header, without the length before it.
        size: bytes of the file.
        label: the model, for the message about a dtype.

    Raises:
        HeaderError: the header breaks a rule of the format.
        RelexError: a tensor is stored in a format that cannot be extrapolated.
    """
    fields = [_fields(name, entry) for name, entry in _entries(text).items()]
    begin = LENGTH_BYTES + len(text)
    found: dict[str, Entry] = {}
    end = 0
    for first, last, name, dtype, shape in sorted(fields):
        numel = _numel(shape, name)
        info = tensor_info(name, dtype, shape, label)
        if first != end or numel * info.dtype.itemsize != last - first:
            raise HeaderError(
                f"is corrupt: its header puts {_shown(name)}, {dtype} of shape {list(shape)}, into "
                f"bytes {first:,} to {last:,}, where it cannot be"
            )
        found[name] = Entry(info, begin + first)
        end = last
    if begin + end != size:
        raise HeaderError(
            f"is truncated or corrupt: {size:,} bytes, its header says {begin + end:,}"
        )
    return found


def tensor_info(name: str, dtype: str, shape: Sequence[int], label: str) -> TensorInfo:
    """Return dtype and shape of a header entry.

    Raises:
        RelexError: torch has no such dtype; the message names the model ``label`` and the tensor.
    """
    if dtype not in DTYPES:
        raise RelexError(
            f"{label}: {_shown(name)} is stored as {_shown(dtype)}, a packed or quantized format; "
            "extrapolation needs the unquantized checkpoints"
        )
    return TensorInfo(DTYPES[dtype], tuple(shape))


def _entries(text: bytes) -> dict[str, Any]:
    """Return the header's object without its metadata, whose values must be strings."""
    try:
        # Decoded here, since json would also take UTF-16 and UTF-32. To see every number as it is
        # written takes ten times as long, and only -0 is one that looks like another afterwards.
        whole = _not_minus_zero if b"-0" in text else int
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_int=whole)
    except RecursionError as error:
        raise HeaderError("is corrupt: its header is nested too deeply") from error
    except ValueError as error:
        raise HeaderError(f"is corrupt: its header is not what it should be ({error})") from error
    if not text.startswith(b"{"):
        raise HeaderError("is corrupt: its header does not begin with {")
    metadata = entries.pop("__metadata__", None)
    if metadata is not None and not isinstance(metadata, dict):
        raise HeaderError("is corrupt: the metadata in its header are no object")
    texts = (*entries, *(metadata or {}), *(metadata or {}).values())
    if not all(map(_is_text, texts)):
        raise HeaderError("is corrupt: its header holds a name or metadata that are no text")
    return dict(entries)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _not_minus_zero(digits: str) -> int:
    if digits == "-0":
        raise ValueError("-0 is not an unsigned number")
    return int(digits)


def _is_text(value: object) -> bool:
    """Whether a value is a string of Unicode characters; JSON can also escape half a one."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(text: str) -> str:
    """Return a name out of a file as a message shows it: short."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _fields(name: str, entry: Any) -> tuple[int, int, str, str, tuple[int, ...]]:
    """Return (first byte, last byte + 1, name, dtype, shape) of an entry of the right types."""
    said = f"is corrupt: its header gives {_shown(name)}"
    if not isinstance(entry, dict) or entry.keys() != _KEYS:
        raise HeaderError(f"{said} other properties than dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not (_is_text(dtype) and isinstance(shape, list) and isinstance(offsets, list)):
        raise HeaderError(f"{said} a dtype, shape or data_offsets of the wrong type")
    if len(offsets) != 2 or len(shape) > MOST_DIMENSIONS:
        raise HeaderError(f"{said} {len(shape):,} dimensions and {len(offsets):,} data_offsets")
    if not all(type(number) is int and 0 <= number <= _LARGEST for number in (*shape, *offsets)):
        raise HeaderError(f"{said} a shape or data_offsets that are not unsigned 64-bit numbers")
    return offsets[0], offsets[1], name, dtype, tuple(shape)


def _numel(shape: Sequence[int], name: str) -> int:
    """Return the product of a shape, which must stay a 64-bit number on the way."""
    numel = 1
    for length in shape:
        numel *= length
        if numel > _LARGEST:
            raise HeaderError(
                f"is corrupt: its header gives {_shown(name)} the shape {list(shape)}, which is "
                "too large"
            )
    return numel
