"""Folders of ``torch.distributed.checkpoint`` as a source.

``.metadata`` says which box of which tensor begins where in which ``.distcp`` file. At each of
those places stands what ``torch.save`` made of that box, an archive of its own, whose bytes of
numbers are looked for when they are read first. The variant in safetensors files says in their
headers which box of its tensor each entry is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from relex_merge.checkpoints.archive import Archive, ArchiveError, Record, read_archive
from relex_merge.checkpoints.dcp_metadata import read_metadata
from relex_merge.checkpoints.files import NotWholeError
from relex_merge.checkpoints.inert import InertError, RefusedNameError, Stored, unpickle
from relex_merge.checkpoints.sharded import METADATA, Sharded, holds_adapter
from relex_merge.errors import RelexError
from relex_merge.weights.files import DiskFiles
from relex_merge.weights.header import LENGTH_BYTES, Entry, HeaderError, header_length, parse_header
from relex_merge.weights.names import of_adapter, of_model
from relex_merge.weights.pieces import Box, CoverError, Piece, Pieced, PiecedSource
from relex_merge.weights.place_files import PlaceFiles
from relex_merge.weights.source import DTYPES, TensorInfo

_END_OF_ARCHIVE = 2**10  # bytes; the list of an archive with one tensor fits in
_INFO = "DCP_SHARDING_INFO"  # torch's key in the metadata of safetensors files


class _BoxedSource(PiecedSource):
    """Pieces whose boxes the checkpoint itself names."""

    def _take(self, found: Mapping[str, tuple[TensorInfo, list[Piece]]]) -> None:
        """Put the pieces of all tensors together. Raises RelexError where they do not fit."""
        pieced = {}
        for name, (info, pieces) in found.items():
            try:
                pieced[name] = Pieced.of(info, pieces)
            except CoverError as error:
                raise RelexError(
                    f"{self.label}: {name}: {error}; the checkpoint is not whole: copy it again"
                ) from error
        rename = of_adapter if holds_adapter(pieced) else of_model
        self._pieced = rename(pieced, self.label)
        self.tensors = {name: one.info for name, one in self._pieced.items()}


class DcpSource(_BoxedSource):
    """The model's tensors in a folder with ``.metadata``.

    Args:
        sharded: the checkpoint, of the form ``dcp``.
        files: where it lies.
        label: names the model in messages.

    Raises:
        RelexError: the folder is not whole.
    """

    def __init__(self, sharded: Sharded, files: DiskFiles | PlaceFiles, label: str) -> None:
        super().__init__(files, label)
        self._begins: dict[Any, int] = {}
        try:
            metadata = read_metadata(sharded.folder / METADATA)
            metadata.check(sharded.size_of)
        except NotWholeError as error:
            raise RelexError(f"{label}: {error}; copy it again") from error
        found: dict[str, tuple[TensorInfo, list[Piece]]] = {}
        for name, entry in metadata.tensors.items():
            if entry.dtype not in DTYPES:
                raise RelexError(
                    f"{label}: {name} is stored as {entry.dtype}, a packed or quantized format; "
                    "extrapolation needs the unquantized checkpoints"
                )
            pieces = [
                Piece(Box(c.offsets, c.sizes), c.file, None, (c.begin, c.length, entry.dtype))
                for c in entry.chunks
            ]
            found[name] = TensorInfo(DTYPES[entry.dtype], entry.shape), pieces
        for file in (METADATA, *sharded.files):
            with files.opened(file):
                pass  # its state is noted
        self._take(found)

    def _start(self, piece: Piece) -> int:
        """Look where a piece begins; in a place, once for all that are alike in a file.

        What torch writes before the numbers depends on dtype and shape alone.
        """
        begin: int
        begin, length, dtype = piece.key
        like = (piece.file, piece.box.sizes, length, dtype) if self.remote else piece
        if like not in self._begins:
            self._begins[like] = self._look(piece) - begin
        return begin + self._begins[like]

    def _look(self, piece: Piece) -> int:
        """Return where the numbers of an archive in a file begin."""
        begin: int
        begin, length, dtype = piece.key
        try:
            with self._files.opened(piece.file) as (whole, _):

                def read(offset: int, count: int) -> bytes:
                    return whole(begin + offset, count)

                archive = read_archive(read, length, _END_OF_ARCHIVE)
                return begin + archive.start(_only_storage(archive, piece.box, dtype), read)
        except (ArchiveError, InertError, RefusedNameError) as error:
            raise RelexError(
                f"{self.label}: {piece.file} is not what {METADATA} says it is at {begin:,} "
                f"({error}); copy it again"
            ) from error


def _only_storage(archive: Archive, box: Box, dtype: str) -> Record:
    """Return where an archive has the numbers of a box. Raises InertError when it does not."""
    stored = unpickle(archive.pickle)
    record = archive.storages.get(stored.storage) if type(stored) is Stored else None
    if record is None or (stored.shape, stored.offset, stored.dtype) != (box.sizes, 0, dtype):
        raise InertError("it holds another tensor")
    if record.size != box.numel * DTYPES[dtype].itemsize:
        raise InertError("it does not hold all of its tensor")
    return record


class DcpSafetensorsSource(_BoxedSource):
    """The tensors in the safetensors files that ranks wrote each for itself.

    Args:
        sharded: the checkpoint, of the form ``dcp-safetensors``.
        files: where it lies.
        label: names the model in messages.

    Raises:
        RelexError: a file is not whole, or they do not make up the model.
    """

    def __init__(self, sharded: Sharded, files: DiskFiles | PlaceFiles, label: str) -> None:
        super().__init__(files, label)
        parts: dict[str, list[tuple[TensorInfo, Piece]]] = {}
        for file in sharded.files:
            entries, offsets = self._entries(file)
            for name, entry in entries.items():
                shape = entry.info.shape
                at = offsets.get(name, (0,) * len(shape))
                piece = Piece(Box(at, shape), file, entry.start)
                parts.setdefault(name, []).append((entry.info, piece))
        self._take({name: self._whole(name, own) for name, own in parts.items()})

    def _whole(
        self, name: str, parts: list[tuple[TensorInfo, Piece]]
    ) -> tuple[TensorInfo, list[Piece]]:
        """Return a tensor's dtype and shape, which is that of all boxes together."""
        first, pieces = parts[0][0], [piece for _, piece in parts]
        ends = [[o + n for o, n in zip(p.box.offsets, p.box.sizes, strict=False)] for p in pieces]
        if any(i.dtype != first.dtype or len(i.shape) != len(first.shape) for i, _ in parts):
            raise RelexError(
                f"{self.label}: the parts of {name} do not go together; copy the checkpoint again"
            )
        shape = tuple(max(sizes) for sizes in zip(*ends, strict=True))
        return TensorInfo(first.dtype, shape), pieces

    def _start(self, piece: Piece) -> int:
        assert piece.start is not None
        return piece.start

    def _entries(self, file: str) -> tuple[dict[str, Entry], dict[str, tuple[int, ...]]]:
        """Return the entries of a file, and the offsets of their boxes."""
        name = self._files.name(file)
        try:
            with self._files.opened(file) as (read, size):
                text = read(LENGTH_BYTES, header_length(read(0, LENGTH_BYTES), size))
            entries = parse_header(text, size, self.label)
            info = json.loads((json.loads(text).get("__metadata__") or {}).get(_INFO, "{}"))
            offsets = {name: tuple(map(int, one["saved_offsets"])) for name, one in info.items()}
        except HeaderError as error:
            raise RelexError(f"{name} {error}; copy it again") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RelexError(
                f"{name} does not say which parts of tensors it holds ({error}); copy it again"
            ) from error
        return entries, offsets
