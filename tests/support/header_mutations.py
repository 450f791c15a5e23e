"""Broken and odd safetensors files: seeded, small, and of every kind that came to mind.

Each mutation makes a whole file from a good one. Most are refused by the format's own library, some
are accepted; the library is the judge.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

_ITEMSIZES = {"F32": 4, "BF16": 2, "F16": 2, "F64": 8, "I64": 8, "U8": 1, "BOOL": 1}
_DTYPES = (*_ITEMSIZES, "F8_E4M3", "F8_E8M0", "F4", "U16", "C64", "f32", "", "Ü", "F32 ")
_NUMBERS = (0, 1, 2, 3, 7, 8, 64, 255, 2**31, 2**32, 2**53, 2**61, 2**63, 2**64 - 1, 2**64, 10**30)
_ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    -1,
    1.0,
    1.5,
    1e300,
    "",
    "3",
    "F32",
    [],
    [[]],
    {},
    {"a": 1},
    [None],
)
_LITERALS = (
    "-0", "-1", "1.0", "1e0", "01", "0x10", "+1", "NaN", "Infinity", "-Infinity", "1_000", "١",
    "9" * 25, "9" * 5000, "null", "true", '"1"', "1 2", "[1]", "{}", "", "0.0", "-0.0", "1E400",
)  # fmt: skip


@dataclass
class File:
    """A file to spoil: the entries of its header and its numbers; text replaces the entries."""

    entries: dict[str, Any]
    data: bytes
    text: bytes | None = None
    length: int | None = None
    tail: bytes = b""
    pad: bool = field(default=True)

    def content(self) -> bytes:
        """Return the bytes of the file."""
        text = self.text
        if text is None:
            text = json.dumps(self.entries, separators=(",", ":")).encode("utf-8", "surrogatepass")
        if self.pad:
            text += b" " * (-len(text) % 8)
        length = len(text) if self.length is None else self.length
        return struct.pack("<Q", length % 2**64) + text + self.data + self.tail


Mutation = Callable[[random.Random, File], None]


def good_file(rng: random.Random) -> File:
    """Return a file that the library accepts: up to six tensors of any dtype and shape."""
    entries: dict[str, Any] = {}
    if rng.random() < 0.7:
        entries["__metadata__"] = {"format": "pt", "made": "by \u00fc\n"}
    end = 0
    for i in range(rng.randint(1, 6)):
        dtype = rng.choice(list(_ITEMSIZES))
        shape = [rng.choice((0, 1, 2, 3, 5)) for _ in range(rng.randint(0, 4))]
        size = _ITEMSIZES[dtype]
        for n in shape:
            size *= n
        entries[f"model.layers.{i}.weight"] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [end, end + size],
        }
        end += size
    return File(entries, rng.randbytes(end))


def _entry(rng: random.Random, file: File) -> dict[str, Any]:
    entry = file.entries[rng.choice([n for n in file.entries if n != "__metadata__"])]
    assert isinstance(entry, dict)
    return entry


def _text(file: File) -> str:
    return json.dumps(file.entries, separators=(",", ":"))


def nothing(rng: random.Random, file: File) -> None:
    """Leave the file good; sometimes with its entries in another order."""
    names = list(file.entries)
    rng.shuffle(names)
    file.entries = {name: file.entries[name] for name in names}


def flipped_bytes(rng: random.Random, file: File) -> None:
    """Change some bytes of the header."""
    text = bytearray(_text(file).encode())
    for _ in range(rng.choice((1, 1, 1, 2, 5, 40))):
        text[rng.randrange(len(text))] = rng.choice((rng.randrange(256), *b'"{}[],:0123456789-.e '))
    file.text = bytes(text)


def cut_or_doubled_bytes(rng: random.Random, file: File) -> None:
    """Take out, repeat or move a part of the header."""
    text = _text(file).encode()
    a, b = sorted(rng.randrange(len(text) + 1) for _ in range(2))
    kind = rng.randrange(3)
    file.text = (text[:a] + text[b:], text[:b] + text[a:], text[b:] + text[:b])[kind]


def number(rng: random.Random, file: File) -> None:
    """Put another number into a shape or into offsets."""
    values = _entry(rng, file)[rng.choice(("shape", "data_offsets"))]
    if values:
        at = rng.randrange(len(values))
        near = values[at] + rng.choice((-1, 1, -4, 4))
        values[at] = rng.choice((*_NUMBERS, near, near))


def literal(rng: random.Random, file: File) -> None:
    """Write a number in a way that JSON or the format may not allow."""
    values = _entry(rng, file)[rng.choice(("shape", "data_offsets"))]
    mark = 987_654_321
    values.insert(0, mark)
    values[1:2] = [] if rng.random() < 0.7 else values[1:2]
    file.text = _text(file).replace(str(mark), rng.choice(_LITERALS)).encode()


def other_type(rng: random.Random, file: File) -> None:
    """Put a value of another type in any place."""
    odd = rng.choice(_ODD)
    kind = rng.randrange(5)
    name = rng.choice(list(file.entries))
    if kind == 0:
        file.entries[name] = odd
    elif kind == 1:
        _entry(rng, file)[rng.choice(("dtype", "shape", "data_offsets"))] = odd
    elif kind == 2:
        values = _entry(rng, file)[rng.choice(("shape", "data_offsets"))]
        values.insert(rng.randint(0, len(values)), odd)
    elif kind == 3:
        file.entries["__metadata__"] = odd
    else:
        file.entries.setdefault("__metadata__", {})["odd"] = odd


def keys(rng: random.Random, file: File) -> None:
    """Add, drop, rename or repeat a key."""
    entry = _entry(rng, file)
    kind = rng.randrange(6)
    key = rng.choice(("dtype", "shape", "data_offsets"))
    if kind == 0:
        del entry[key]
    elif kind == 1:
        entry[rng.choice(("strides", "Dtype", "", "offset"))] = rng.choice(_ODD)
    elif kind == 2:
        entry[key.upper()] = entry.pop(key)
    elif kind == 3:
        file.text = (
            _text(file)
            .replace(f'"{key}":', f'"{key}":{json.dumps(entry[key])},"{key}":', 1)
            .encode()
        )
    elif kind == 4:
        text = _text(file)
        name = rng.choice(list(file.entries))
        again = json.dumps({name: file.entries[name]})[1:-1]
        file.text = (text[:-1] + "," + again + "}").encode()
    else:
        file.text = (_text(file)[:-1] + ',"__metadata__":{"a":"b","a":"c"}}').encode()


def dtype(rng: random.Random, file: File) -> None:
    """Give a tensor another dtype, known or not."""
    _entry(rng, file)["dtype"] = rng.choice(_DTYPES)


def places(rng: random.Random, file: File) -> None:
    """Shift, swap, stretch or overlap the places of tensors."""
    kind = rng.randrange(4)
    first, second = _entry(rng, file)["data_offsets"], _entry(rng, file)["data_offsets"]
    if kind == 0:
        by = rng.choice((-8, -1, 1, 4, 2**63, -(2**63)))
        first[:] = [first[0] + by, first[1] + by]
    elif kind == 1:
        first[:], second[:] = list(second), list(first)
    elif kind == 2:
        first.reverse()
    else:
        first[:] = second


def sizes(rng: random.Random, file: File) -> None:
    """Make the file shorter or longer than its header says."""
    kind = rng.randrange(3)
    if kind == 0:
        file.data = file.data[: rng.randrange(len(file.data) + 1)]
    elif kind == 1:
        file.tail = rng.randbytes(rng.choice((1, 8, 100)))
    else:
        file.data = b""


def length(rng: random.Random, file: File) -> None:
    """Announce a header of another length."""
    real = len(file.content()) - 8 - len(file.data)
    near = real + rng.choice((-8, -1, 1, 8, 100))
    file.length = rng.choice((near, near, 0, 1, 7, 100_000_000, 100_000_001, 2**62, 2**64 - 1))


def ends(rng: random.Random, file: File) -> None:
    """Put something before or after the header's object."""
    text, odd = _text(file), rng.choice((" ", "\n", "\t", "\0", "x", "{}", ",", "\ufeff", "  \r\n"))
    file.text = (text + odd if rng.random() < 0.5 else odd + text).encode()
    file.pad = rng.random() < 0.5


def encoding(rng: random.Random, file: File) -> None:
    """Write the header in another encoding, or names that are no Unicode."""
    kind = rng.randrange(5)
    text = _text(file)
    if kind == 0:
        file.text = text.encode(rng.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig")))
    elif kind == 1:
        odd = rng.choice(
            (r"\ud800", r"\udc00\ud800", r"\u0000", r"\x41", "\x01", "\x7f", r"\ud83d\ude00")
        )
        file.text = text.replace("model", odd, 1).encode()
    elif kind == 2:
        file.text = text.encode().replace(
            b"model", rng.choice((b"\xff", b"\xc0\x80", b"\xed\xa0\x80")), 1
        )
    elif kind == 3:
        file.entries["\u00fc\U0001f600 " * 3] = file.entries.pop(next(iter(file.entries)))
    else:
        file.text = text.replace('"F32"', r'"\u004632"').encode()


def depth(rng: random.Random, file: File) -> None:
    """Nest deeply: in an unknown key, in place of a value, or the whole header."""
    levels = rng.choice((5, 100, 126, 127, 128, 129, 1000, 100_000))
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}")))
    nested = opening * levels + "1" + closing * levels
    kind = rng.randrange(3)
    if kind == 0:
        file.text = nested.encode()
    elif kind == 1:
        file.text = (_text(file)[:-1] + f',"deep":{nested}}}').encode()
    else:
        file.text = _text(file).replace('"shape":', f'"deep":{nested},"shape":', 1).encode()


def many(rng: random.Random, file: File) -> None:
    """Make a list, a name or the number of tensors long."""
    kind = rng.randrange(4)
    entry = _entry(rng, file)
    if kind == 0:
        entry["shape"] = [rng.choice((0, 1, 2, 3))] * rng.choice((63, 64, 65, 1000, 20_000))
    elif kind == 1:
        entry["data_offsets"] = [0] * 10_000
    elif kind == 2:
        file.entries["n" * 50_000] = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}
    else:
        end = len(file.data)
        for i in range(300):
            file.entries[f"empty.{i}"] = {
                "dtype": "F32", "shape": [0], "data_offsets": [end, end]
            }  # fmt: skip


def junk(rng: random.Random, file: File) -> None:
    """Use a header that has nothing to do with the format."""
    file.text = rng.choice((
        b"", b"{}", b"[]", b"null", b"1", b'""', b"{", b"}", b'{"a"}', b"{'a': 1}", b"PK\x03\x04",
        rng.randbytes(50),
    ))  # fmt: skip
    if rng.random() < 0.5:
        file.data = b""


MUTATIONS: tuple[Mutation, ...] = (
    nothing, flipped_bytes, flipped_bytes, cut_or_doubled_bytes, number, number, literal,
    other_type, other_type, keys, dtype, places, sizes, length, ends, encoding, depth, many, junk,
)  # fmt: skip


def mutated_file(seed: int, number: int) -> tuple[str, bytes]:
    """Return the name of a mutation and a file made with it, the same for the same arguments."""
    rng = random.Random(f"{seed}/{number}")
    file = good_file(rng)
    mutation = rng.choice(MUTATIONS)
    mutation(rng, file)
    if file.text is None and rng.random() < 0.1:
        flipped_bytes(rng, file)
    return f"{number}: {mutation.__name__}", file.content()


def mutated_files(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield (name of the mutation, content) of ``count`` files, the same for the same seed."""
    return (mutated_file(seed, number) for number in range(count))


def costly_files() -> Iterator[tuple[str, bytes]]:
    """Yield a few files of some megabytes that are cheap to read only for a careful parser."""
    for value in ("0", "1", "2", "3", "65537", "18446744073709551615"):
        file = good_file(random.Random(0))
        shape = ",".join([value] * (3_000_000 // (len(value) + 1)))
        name = next(n for n in file.entries if n != "__metadata__")
        file.entries[name]["shape"] = []
        file.text = _text(file).replace('"shape":[]', f'"shape":[{shape}]', 1).encode()
        yield f"a shape of {value} × 3 MB", file.content()
    for nested in ("[" * 3_000_000, '{"a":' * 600_000, "9" * 3_000_000, '"' + "x" * 3_000_000):
        file = good_file(random.Random(1))
        file.text = (_text(file)[:-1] + f',"long":{nested}}}').encode()
        yield f"3 MB of {nested[:5]}", file.content()
