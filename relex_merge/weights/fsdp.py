"""The files of FSDP's ranks as a source: each tensor is put together from what every rank has.

verl saves a file for each rank, with the rank's part of every tensor: a DTensor on a mesh of
devices, a ShardedTensor, or a plain tensor. Which box of the tensor a rank has follows from mesh
and placements as in torch (``torch.chunk``: parts of one size, the last ones smaller or empty).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

from relex_merge.checkpoints.archive import ArchiveError, Record
from relex_merge.checkpoints.files import NotWholeError
from relex_merge.checkpoints.inert import Distributed, Placement, Shape, Shards, Stored
from relex_merge.checkpoints.shard_file import COLLECTOR, Part, read_shard_file
from relex_merge.checkpoints.sharded import Sharded, holds_adapter
from relex_merge.errors import RelexError
from relex_merge.formatting import some
from relex_merge.weights.files import DiskFiles
from relex_merge.weights.names import of_adapter, of_model
from relex_merge.weights.pieces import Box, CoverError, Piece, Pieced, PiecedSource
from relex_merge.weights.place_files import PlaceFiles
from relex_merge.weights.source import DTYPES, TensorInfo

_OPENED_AT_ONCE = 8  # files; their ends are read while another one's pickle is
_MIXED = "the ranks of two saves are mixed, or a file is not whole; copy the checkpoint again"


class FsdpSource(PiecedSource):
    """The tensors in the files of all ranks.

    Args:
        sharded: the checkpoint, of the form ``fsdp``, or ``full`` as that of one rank.
        files: where it lies.
        label: names the model in messages.

    Raises:
        RelexError: a file is not whole, or the files do not make up a model.
    """

    def __init__(self, sharded: Sharded, files: DiskFiles | PlaceFiles, label: str) -> None:
        super().__init__(files, label)
        with COLLECTOR.at_rest():
            found = self._found(sharded.files)
        rename = of_adapter if holds_adapter(found) else of_model
        self._pieced = rename(found, label)
        self.tensors = {name: pieced.info for name, pieced in self._pieced.items()}

    def _found(self, files: Sequence[str]) -> dict[str, Pieced]:
        """Open the files, and put together what they say."""
        with ThreadPoolExecutor(min(_OPENED_AT_ONCE, len(files))) as pool:
            self._ranks = list(pool.map(self._open, files))
        first = self._ranks[0]
        for rank in self._ranks[1:]:
            self._check_same_names(first, rank)
        plain = _plain_shards(self._ranks)
        found = {name: self._pieces(name, plain=plain) for name in first.parts}
        self._digests = [rank.digest for rank in self._ranks]
        self._ranks.clear()  # before the collector looks at all that they hold
        return found

    def fingerprint(self) -> list[Any]:
        """Return label, states of the files, and digests of the checksums that torch wrote."""
        return [*super().fingerprint(), *self._digests]

    def _start(self, piece: Piece) -> int:
        assert piece.start is not None
        return piece.start

    def _open(self, file: str) -> _Rank:
        try:
            with self._files.opened(file) as (read, size):
                shard = read_shard_file(read, size, file)
                archive = shard.archive
                places = {
                    key: _Place(archive.start(record, read), record)
                    for key, record in archive.storages.items()
                }
        except ArchiveError as error:
            raise RelexError(f"{self._files.name(file)} {error}; copy it again") from error
        except NotWholeError as error:
            raise RelexError(f"{self.label}: {error}; copy it again") from error
        return _Rank(file, shard.parts, places, archive.digest)

    def _check_same_names(self, first: _Rank, other: _Rank) -> None:
        if first.parts.keys() == other.parts.keys():
            return
        here, there = set(first.parts), set(other.parts)
        raise RelexError(
            f"{self.label}: {first.file} and {other.file} do not hold the same tensors: only the "
            f"first has {some(sorted(here - there), 4)}, only the second "
            f"{some(sorted(there - here), 4)}; {_MIXED}"
        )

    def _pieces(self, name: str, *, plain: bool) -> Pieced:
        """Return what all ranks have of a tensor.

        Args:
            name: the tensor.
            plain: whether plain tensors are cut along their first dimension, as those of other
                sharded tensors, instead of being the same in all ranks.
        """
        ranks = self._ranks
        parts = [rank.parts[name] for rank in ranks]
        kind, dtype = type(parts[0]), parts[0].dtype
        if any(type(part) is not kind or part.dtype != dtype for part in parts):
            raise RelexError(f"{self.label}: {name} differs in kind or dtype among ranks; {_MIXED}")
        if dtype not in DTYPES:
            raise RelexError(
                f"{self.label}: {name} is stored as {dtype or 'bytes'}, a packed or quantized "
                "format; extrapolation needs the unquantized checkpoints"
            )
        try:
            if kind is Stored:
                shape, boxed = _plain(parts, cut=plain)
            else:
                shape, boxed = _sharded(parts)
            pieces = [
                ranks[number].piece(box, stored, DTYPES[dtype].itemsize)
                for number, box, stored in boxed
            ]
            self._check_copies(name, pieces)
            return Pieced.of(TensorInfo(DTYPES[dtype], shape), pieces)
        except CoverError as error:
            raise RelexError(f"{self.label}: {name}: {error}; {_MIXED}") from error

    def _check_copies(self, name: str, pieces: Sequence[Piece]) -> None:
        """Raise RelexError when ranks that have the same box do not have the same numbers."""
        seen: dict[Box, Piece] = {}
        for piece in pieces:
            first = seen.setdefault(piece.box, piece)
            if None not in {first.key, piece.key} and first.key != piece.key:
                raise RelexError(
                    f"{self.label}: {name} is the same part in {first.file} and {piece.file}, and "
                    f"their checksums differ; {_MIXED}"
                )


class _Place(NamedTuple):
    """Where a storage lies in its file."""

    start: int
    record: Record


@dataclass(frozen=True)
class _Rank:
    """The opened file of a rank."""

    file: str
    parts: Mapping[str, Part]
    places: Mapping[str, _Place]
    digest: str

    def piece(self, box: Box, stored: Stored, itemsize: int) -> Piece:
        """Return a rank's part as a piece; its key is the checksum of a storage that it fills.

        Raises:
            CoverError: it is not where the file says, or its numbers are in another order.
        """
        if not box.numel:
            return Piece(box, self.file, 0)
        place = self.places.get(stored.storage)
        first, length = stored.offset * itemsize, box.numel * itemsize
        if place is None or first + length > place.record.size:
            raise CoverError(f"{self.file} does not hold all of its part")
        if not _in_order(stored.shape, stored.strides):
            raise CoverError(f"{self.file} has the numbers of its part in another order")
        whole = first == 0 and length == place.record.size
        return Piece(box, self.file, place.start + first, place.record.crc if whole else None)


def _in_order(shape: Shape, strides: Shape) -> bool:
    """Whether numbers lie row by row."""
    step = 1
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length != 1 and stride != step:
            return False
        step *= length
    return True


def _plain_shards(ranks: Sequence[_Rank]) -> bool:
    """Whether the plain tensors of the ranks are parts, and not copies.

    They are where ranks have nothing but plain tensors, and some of them differ.
    """
    parts = [part for rank in ranks for part in rank.parts.values()]
    if len(ranks) == 1 or any(type(part) is not Stored for part in parts):
        return False
    return any(len({_content(rank, name) for rank in ranks}) > 1 for name in ranks[0].parts)


def _content(rank: _Rank, name: str) -> tuple[object, ...]:
    """Return what tells a plain tensor from another one."""
    part = rank.parts[name]
    assert isinstance(part, Stored)
    place = rank.places.get(part.storage)
    return part.shape, part.offset, place and place.record.crc


def _plain(parts: Sequence[Any], *, cut: bool) -> tuple[Shape, list[tuple[int, Box, Stored]]]:
    """Return the shape of a plain tensor, and the boxes of the ranks."""
    first = parts[0].shape
    if any(part.shape[1:] != first[1:] or len(part.shape) != len(first) for part in parts):
        raise CoverError("its parts have shapes that do not go together")
    if not cut:
        if any(part.shape != first for part in parts):
            raise CoverError("its copies have different shapes")
        whole = Box((0,) * len(first), first)
        return first, [(number, whole, part) for number, part in enumerate(parts)]
    if not first:
        raise CoverError("single numbers differ among ranks")
    rest = (0,) * (len(first) - 1)
    begins = list(accumulate((part.shape[0] for part in parts), initial=0))
    boxed = [
        (number, Box((begin, *rest), part.shape), part)
        for number, (begin, part) in enumerate(zip(begins, parts, strict=False))
    ]
    return (begins[-1], *first[1:]), boxed


def _sharded(parts: Sequence[Any]) -> tuple[Shape, list[tuple[int, Box, Stored]]]:
    """Return the shape of a sharded tensor, and the boxes of the ranks."""
    shape = parts[0].shape
    if any(part.shape != shape for part in parts):
        raise CoverError("the ranks do not agree on its shape")
    boxed = []
    for number, part in enumerate(parts):
        if isinstance(part, Shards):
            boxed += [(number, Box(offsets, s.shape), s) for offsets, s in part.parts]
            continue
        assert isinstance(part, Distributed)
        if (part.placements, part.mesh) != (parts[0].placements, parts[0].mesh):
            raise CoverError("the ranks do not agree on how it is cut")
        coordinate = part.coordinate if part.coordinate is not None else _unravel(number, part.mesh)
        box = box_of(shape, part.placements, part.mesh, coordinate)
        if box.sizes != part.local.shape:
            raise CoverError(
                f"rank {number} has {list(part.local.shape)} of it, and should have "
                f"{list(box.sizes)}"
            )
        boxed.append((number, box, part.local))
    return shape, boxed


def _unravel(number: int, mesh: Shape) -> Shape:
    found = []
    for size in reversed(mesh):
        number, at = divmod(number, size)
        found.append(at)
    return tuple(reversed(found))


@lru_cache(maxsize=4096)
def box_of(shape: Shape, placements: tuple[Placement, ...], mesh: Shape, coordinate: Shape) -> Box:
    """Return the box of a tensor that a place in a mesh of devices has.

    Args:
        shape: of the whole tensor.
        placements: one for each dimension of the mesh.
        mesh: its sizes.
        coordinate: the place in it.

    Raises:
        CoverError: mesh and placements do not go together, or are of a kind that has no box.
    """
    if not len(placements) == len(mesh) == len(coordinate):
        raise CoverError("its placements are not those of its mesh")
    offsets, sizes = [0] * len(shape), list(shape)
    # A strided shard is what was cut after the dimensions of the mesh behind it.
    order = sorted(range(len(mesh)), key=lambda d: placements[d].kind == "strided")
    for d in order:
        kind, dim = placements[d]
        if kind == "replicate":
            continue
        if kind == "partial":
            raise CoverError("it is a partial sum, which is no weight")
        dim = dim + len(shape) if dim < 0 else dim
        if not 0 <= dim < len(shape) or not 0 <= coordinate[d] < mesh[d]:
            raise CoverError("it is cut along a dimension that it does not have")
        part = -(-sizes[dim] // mesh[d])
        begin = min(part * coordinate[d], sizes[dim])
        offsets[dim] += begin
        sizes[dim] = min(part, sizes[dim] - begin)
    return Box(tuple(offsets), tuple(sizes))
