"""Where the parts of a file of ``torch.save`` lie, without torch and without reading a number.

Such a file is a zip archive: a pickle that describes the tensors, and an uncompressed record of
bytes for each storage. The list of records at its end and the pickle at its beginning are all that
is read. The format is PKWARE's (APPNOTE.TXT, sections 4.3 and 4.5); torch pads records so that
their bytes begin at multiples of 64 (``caffe2/serialize/inline_container.cc``).
"""

from __future__ import annotations

import hashlib
import struct
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

_TAIL = 2**16  # bytes read from the end at first; a list of 600 records fits in
_HEAD = 2**12  # bytes read behind the pickle, where the byte order stands
_ALIGNMENT = 64  # bytes; torch's default
_UNKNOWN = 0xFFFFFFFF  # in a 32-bit field: the number is in the zip64 field
_LOCAL = 30  # bytes of a record's own header, before its name and its extra field
_ENTRY = struct.Struct("<4s6HIII5HII")
_END = struct.Struct("<4s4HIIH")
_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_DESCRIPTORS = (16, 24)  # bytes behind a record that was written in one go, without and with zip64

Reader: TypeAlias = Callable[[int, int], bytes]
"""Returns ``count`` bytes from an offset on; fewer at the end of the file."""


class ArchiveError(Exception):
    """A file is not what torch writes; the message says what is wrong with it, and not which."""


class Record(NamedTuple):
    """One file in an archive.

    Attributes:
        header: offset in bytes of its own header.
        size: bytes of its content.
        crc: checksum of its content.
        name: as it stands in the archive.
    """

    header: int
    size: int
    crc: int
    name: bytes


@dataclass(frozen=True)
class Archive:
    """A file of ``torch.save``.

    Attributes:
        pickle: describes the tensors.
        storages: key, as the pickle names a storage → its record.
        digest: of the names, sizes and checksums of all records.
        next_header: header of a record → where the next one begins.
    """

    pickle: bytes
    storages: Mapping[str, Record]
    digest: str
    next_header: Mapping[int, int] = field(repr=False)

    def start(self, record: Record, read: Reader) -> int:
        """Return the offset of a record's first byte.

        Args:
            record: of this archive.
            read: reads the file; called where the record is not at the place that torch pads to.

        Raises:
            ArchiveError: the record does not end before the next one.
        """
        large = record.size >= _UNKNOWN or record.header >= _UNKNOWN
        least = record.header + _LOCAL + len(record.name) + 4 + (20 if large else 0)
        begin = -(-least // _ALIGNMENT) * _ALIGNMENT
        behind = self.next_header[record.header] - begin - record.size
        if behind in _DESCRIPTORS:
            return begin
        begin = _begin(record, read)
        if begin + record.size > self.next_header[record.header]:
            raise ArchiveError("is corrupt: two of its records overlap")
        return begin


def read_archive(read: Reader, size: int, tail: int = _TAIL) -> Archive:
    """Read the list of records and the pickle.

    Args:
        read: reads the file, or the part of a file that is an archive.
        size: its bytes.
        tail: how many of them are read at the end at first, where the list stands.

    Raises:
        ArchiveError: it is cut off, compressed, corrupt, or of the other byte order.
    """
    records, listed_at = _records(read, size, tail)
    headers = sorted(record.header for record in records)
    following = dict(zip(headers, [*headers[1:], listed_at], strict=True))
    if len(following) < len(records):
        raise ArchiveError("is corrupt: two of its records overlap")
    named: dict[bytes, Record] = {}
    for record in records:
        named[record.name.partition(b"/")[2]] = record
    pickled = named.get(b"data.pkl")
    if pickled is None:
        raise ArchiveError("is a zip archive without data.pkl, which torch.save did not write")
    storages = {
        name[5:].decode("ascii", "replace"): record
        for name, record in named.items()
        if name.startswith(b"data/")
    }
    told = b"".join(b"%s\0%d\0%d\0" % (r.name, r.size, r.crc) for r in records)
    archive = Archive(b"", storages, hashlib.sha256(told).hexdigest(), following)
    begin = archive.start(pickled, read)
    head = read(begin, pickled.size + _HEAD)
    pickle = head[: pickled.size]
    if len(pickle) < pickled.size or zlib.crc32(pickle) != pickled.crc:
        raise ArchiveError("is corrupt: the checksum of its data.pkl is wrong")
    _check_byte_order(named.get(b"byteorder"), begin, head, archive, read)
    return Archive(pickle, storages, archive.digest, following)


def check_end(read: Reader, size: int) -> None:
    """Raise ArchiveError unless the list of records at the end of an archive is whole."""
    _records(read, size)


def _records(read: Reader, size: int, most: int = _TAIL) -> tuple[list[Record], int]:
    """Return all records, and the offset at which their list begins."""
    tail_at = max(0, size - most)
    tail = read(tail_at, size - tail_at)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise ArchiveError(
            "is cut off, or in torch's format from before 1.6: the end of its zip archive is not "
            "there"
        )
    _, _, _, _, count, length, first, _ = _END.unpack_from(tail, at)
    if at >= _LOCATOR.size and tail[at - _LOCATOR.size : at].startswith(b"PK\x06\x07"):
        _, _, where, _ = _LOCATOR.unpack_from(tail, at - _LOCATOR.size)
        text = read(where, _END64.size) if where < size else b""
        if len(text) < _END64.size or not text.startswith(b"PK\x06\x06"):
            raise ArchiveError("is corrupt: the end of its zip archive points nowhere")
        count, length, first = _END64.unpack(text)[-3:]
    if first + length > size:
        raise ArchiveError("is cut off: its list of records lies behind its end")
    text = tail[first - tail_at : first - tail_at + length] if first >= tail_at else b""
    text = text or read(first, length)
    records = list(_entries(text, count))
    if any(record.header + _LOCAL + record.size > first for record in records):
        raise ArchiveError("is corrupt: one of its records lies outside of it")
    return records, first


def _entries(text: bytes, count: int) -> list[Record]:
    """Return the records of the list of an archive."""
    found = []
    at = 0
    for _ in range(count):
        if len(text) - at < _ENTRY.size or not text.startswith(b"PK\x01\x02", at):
            raise ArchiveError("is corrupt: its list of records is not whole")
        fields = _ENTRY.unpack_from(text, at)
        method, crc, packed, size = fields[4], *fields[7:10]
        name, extra, comment = fields[10:13]
        header = fields[16]
        at += _ENTRY.size
        end = at + name + extra + comment
        if method != 0:
            raise ArchiveError(
                "is a compressed zip archive, of which no ranges can be read; torch.save writes "
                "none: unpack it, or fetch it again"
            )
        if _UNKNOWN in {packed, size, header}:
            size, header = _wide(text[at + name : at + name + extra], packed, size, header)
        elif packed != size:
            raise ArchiveError("is corrupt: a record has two sizes")
        found.append(Record(header, size, crc, text[at : at + name]))
        at = end
    return found


def _wide(extra: bytes, packed: int, size: int, header: int) -> tuple[int, int]:
    """Return size and header offset, those from the zip64 field that do not fit in 32 bits."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            numbers = iter(struct.unpack_from(f"<{length // 8}Q", extra, at + 4))
            try:
                size = next(numbers) if size == _UNKNOWN else size
                packed = next(numbers) if packed == _UNKNOWN else packed
                header = next(numbers) if header == _UNKNOWN else header
            except StopIteration:
                break
            return size, header
        at += 4 + length
    raise ArchiveError("is corrupt: a record larger than 4 GB has no zip64 field")


def _begin(record: Record, read: Reader) -> int:
    """Return where a record's content begins, by its own header."""
    text = read(record.header, _LOCAL)
    if len(text) < _LOCAL or not text.startswith(b"PK\x03\x04"):
        raise ArchiveError("is corrupt: a record has no header of its own")
    name, extra = struct.unpack_from("<HH", text, _LOCAL - 4)
    return int(record.header + _LOCAL + name + extra)


def _check_byte_order(
    record: Record | None, begin: int, head: bytes, archive: Archive, read: Reader
) -> None:
    """Raise ArchiveError for numbers in the other byte order; older torch does not say which."""
    if record is None:
        return
    at = archive.start(record, read)
    if at - begin >= 0 and at - begin + record.size <= len(head):
        order = head[at - begin : at - begin + record.size]
    else:
        order = read(at, record.size)
    if order != sys.byteorder.encode():
        raise ArchiveError("has its numbers in the other byte order")
