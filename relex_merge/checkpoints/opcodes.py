"""Which opcodes a pickle of weights may consist of, checked before it is read.

The machine that reads pickles reserves as much memory as an opcode asks for: five bytes of a broken
file can ask for 30 GB. Here every opcode is one that torch writes, and every slot of the memo has a
number that a file of this kind can have.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# By their letters in Python's pickletools: without an argument; with one of a fixed length; GLOBAL,
# whose two names end with a line each. LONG_BINPUT takes slots below 2^22 only.
_FIXED = re.compile(
    rb"(?:[()}\]\x8faesut\x85\x86\x87N\x88\x89\x94\x93Rb\x81\x92Q\x90\x9101]"
    rb"|[\x80Kqh].|M..|[Jj]....|r..[\x00-\x3f]\x00|[G\x95].{8}"
    rb"|c[^\n]{0,200}\n[^\n]{0,200}\n"
    # BINUNICODE of up to four characters, as keys of storages are
    rb"|X(?:\x01\0\0\0.|\x02\0\0\0..|\x03\0\0\0.{3}|\x04\0\0\0.{4}))*",
    re.DOTALL,
)
# Opcodes that are followed by a length, and as many bytes: how many bytes the length has.
_COUNTED = {
    ord("X"): 4,  # BINUNICODE
    0x8C: 1,  # SHORT_BINUNICODE
    0x8D: 8,  # BINUNICODE8
    ord("C"): 1,  # SHORT_BINBYTES
    ord("B"): 4,  # BINBYTES
    0x8A: 1,  # LONG1
}
_STOP = ord(".")


def check_opcodes(text: bytes, refuse: Callable[[str], Exception]) -> None:
    """Go through a pickle from opcode to opcode.

    Args:
        text: the pickle.
        refuse: makes the error that is raised where it is not what torch writes.
    """
    at, end = 0, len(text)
    match, counted = _FIXED.match, _COUNTED
    while at < end:
        found = match(text, at)
        at = found.end() if found else at
        if at >= end:
            break
        opcode = text[at]
        if opcode == _STOP:
            return
        width = counted.get(opcode)
        if width is None:
            raise refuse(f"opcode {opcode:#04x} at {at:,} is none that torch writes there")
        at += 1 + width + int.from_bytes(text[at + 1 : at + 1 + width], "little")
    raise refuse("it is cut off")
