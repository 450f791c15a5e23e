"""Folders of ``torch.distributed.checkpoint`` as a source.

``.metadata`` says which box of which tensor begins where in which ``.distcp`` file. At each of
those places stands what ``torch.save`` made of that box, an archive of its own, whose bytes of
numbers are looked for when they are read first. The variant in safetensors files says in their
headers which box of its tensor each entry is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from relex_merge.checkpoints.archive import Archive, ArchiveError, Record, read_archive
from relex_merge.checkpoints.dcp_metadata import read_metadata
from relex_merge.checkpoints.files import NotWholeError
from relex_merge.checkpoints.inert import InertError, RefusedNameError, Stored, unpickle
from relex_merge.checkpoints.shard_file import reader
from relex_merge.checkpoints.sharded import METADATA, Sharded, holds_adapter
from relex_merge.errors import RelexError
from relex_merge.weights.header import LENGTH_BYTES, Entry, HeaderError, header_length, parse_header
from relex_merge.weights.names import of_adapter, of_model
from relex_merge.weights.pieces import Box, CoverError, Piece, Pieced, PiecedSource
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
        label: names the model in messages.

    Raises:
        RelexError: the folder is not whole.
    """

    def __init__(self, sharded: Sharded, label: str) -> None:
        super().__init__(sharded.folder, label)
        self._begins: dict[Piece, int] = {}
        try:
            metadata = read_metadata(sharded.folder / METADATA)
            metadata.check(sharded.folder)
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
        self._mark_all(sharded.folder, [METADATA, *sharded.files])
        self._take(found)

    def _mark_all(self, folder: Path, files: list[str]) -> None:
        for file in files:
            try:
                with (folder / file).open("rb", buffering=0) as stream:
                    self.mark(file, stream)
            except OSError as error:
                raise RelexError(
                    f"{folder / file} cannot be read ({os.strerror(error.errno or 0)})"
                ) from error

    def _start(self, piece: Piece) -> int:
        if piece not in self._begins:
            self._begins[piece] = self._look(piece)
        return self._begins[piece]

    def _look(self, piece: Piece) -> int:
        """Return where the numbers of an archive in a file begin."""
        begin: int
        begin, length, dtype = piece.key
        try:
            with self._opened(piece.file) as stream:
                read = reader(stream, begin)
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
        label: names the model in messages.

    Raises:
        RelexError: a file is not whole, or they do not make up the model.
    """

    def __init__(self, sharded: Sharded, label: str) -> None:
        super().__init__(sharded.folder, label)
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
        path = self._folder / file
        try:
            with path.open("rb", buffering=0) as stream:
                size = self.mark(file, stream)
                text = stream.read(header_length(stream.read(LENGTH_BYTES), size))
            entries = parse_header(text, size, self.label)
            info = json.loads((json.loads(text).get("__metadata__") or {}).get(_INFO, "{}"))
            offsets = {name: tuple(map(int, one["saved_offsets"])) for name, one in info.items()}
        except HeaderError as error:
            raise RelexError(f"{path} {error}; copy it again") from error
        except OSError as error:
            raise RelexError(f"{path} cannot be read ({error.strerror}); copy it again") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RelexError(
                f"{path} does not say which parts of tensors it holds ({error}); copy it again"
            ) from error
        return entries, offsets
