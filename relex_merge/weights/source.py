"""Where a tensor's bytes come from: one small interface with range reads.

A source knows its tensors' dtypes and shapes before a byte of weights is read, and fills buffers
with byte ranges of them. Which files they are in is the answer of checkpoints/files.py.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from relex_merge.checkpoints.files import require_weights
from relex_merge.errors import RelexError

# Names of the safetensors format.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
EXTRAPOLATED = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
LENGTH_BYTES = 8  # a safetensors file begins with the length of its header
LONGEST_HEADER = 100_000_000  # bytes, the format's own limit


@dataclass(frozen=True)
class TensorInfo:
    """dtype and shape of a stored tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """How many numbers it has; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True)
class Read:
    """A wish: bytes [start, start + len(into)) of tensor ``name``, row-major, to ``into``."""

    name: str
    start: int
    into: memoryview


class Source(ABC):
    """The weights of one model. Reads may come from any thread.

    label: names it in messages; parallel_reads: how many threads may read at a time with a gain;
    computed: whether its numbers are computed while they are read, so that their dtype says nothing
    of how the model is stored; remote: whether a second read of the same bytes is dear, because
    they cross a network.
    """

    label: str
    tensors: Mapping[str, TensorInfo]
    parallel_reads = 4
    computed = False
    remote = False

    @abstractmethod
    def read(self, reads: Sequence[Read]) -> None:
        """Fill every buffer. Raises RelexError when the bytes are not there any more."""

    def fingerprint(self) -> list[Any]:
        """What must be the same for bytes read earlier to be valid still (JSON)."""
        return [self.label]

    def stop(self) -> None:  # noqa: B027  # most have nothing to wait for
        """Let reads that wait for something fail soon: nobody needs them any more."""


def read_numbers(source: Source, name: str, start: int, count: int) -> torch.Tensor:
    """Numbers [start, start + count) of a tensor, row-major, as they are stored: (count,)."""
    dtype = source.tensors[name].dtype
    raw = torch.empty(count * dtype.itemsize, dtype=torch.uint8)
    source.read([Read(name, start * dtype.itemsize, raw.numpy().data)])
    return raw.view(dtype)


@dataclass(frozen=True)
class Extent:
    """Where a tensor lies: file, and byte offset in it."""

    file: str
    offset: int


class HeaderError(ValueError):
    """A safetensors file does not hold what it should; the message says what is wrong with it."""


def tensor_info(name: str, dtype: str, shape: Sequence[int], label: str) -> TensorInfo:
    """The info of a header entry. Raises RelexError for a dtype that is none of the format's."""
    if dtype not in DTYPES:
        raise RelexError(
            f"{label}: {name} is stored as {dtype}, a packed or quantized format; extrapolation "
            "needs the unquantized checkpoints"
        )
    return TensorInfo(DTYPES[dtype], tuple(shape))


def header_length(prefix: bytes, size: int) -> int:
    """Length of the header of a safetensors file of ``size`` bytes from its first 8 bytes."""
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if len(prefix) < LENGTH_BYTES or length > min(size - LENGTH_BYTES, LONGEST_HEADER):
        raise HeaderError("is not a whole safetensors file")
    return length


def parse_header(
    text: bytes, file: str, size: int, label: str
) -> tuple[dict[str, TensorInfo], dict[str, Extent]]:
    """Infos and places of all tensors from the header (without the length before it).

    The numbers must fill a file of ``size`` bytes without a gap. Raises HeaderError, and RelexError
    naming ``label`` for what is stored in a format that cannot be extrapolated.
    """
    start = LENGTH_BYTES + len(text)
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        fields = [
            (
                *map(int, entry["data_offsets"]),
                name,
                str(entry["dtype"]),
                tuple(map(int, entry["shape"])),
            )
            for name, entry in entries.items()
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise HeaderError("is not a whole safetensors file") from error
    infos: dict[str, TensorInfo] = {}
    extents: dict[str, Extent] = {}
    end = 0
    for first, last, name, dtype, shape in sorted(fields):
        infos[name] = tensor_info(name, dtype, shape, label)
        extents[name] = Extent(file, start + first)
        if first != end or last - first != infos[name].nbytes:
            raise HeaderError(f"is corrupt: its header puts {name} where it cannot be")
        end = last
    if start + end != size:
        raise HeaderError(
            f"is truncated or corrupt: {size:,} bytes, its header says {start + end:,}"
        )
    return infos, extents


class SafetensorsSource(Source):
    """A folder of safetensors files, read range by range without mapping them."""

    def __init__(
        self,
        folder: Path,
        label: str,
        files: Sequence[str],
        places: Mapping[str, str] | None = None,
    ) -> None:
        self.label = label
        self._folder = folder
        self._files = files
        self._places = places or {}
        self._extents: dict[str, Extent] = {}
        tensors: dict[str, TensorInfo] = {}
        for file in files:
            self._read_header(file, tensors)
        check_promised(tensors, self._places, label)
        self.tensors = tensors

    def _read_header(self, file: str, tensors: dict[str, TensorInfo]) -> None:
        path = self._folder / file
        try:
            size = path.stat().st_size
            with path.open("rb") as stream:
                text = stream.read(header_length(stream.read(LENGTH_BYTES), size))
            infos, extents = parse_header(text, file, size, self.label)
        except HeaderError as error:
            raise RelexError(f"{path} {error}; fetch it again") from error
        except OSError as error:
            raise RelexError(f"{path} cannot be read ({error.strerror}); fetch it again") from error
        for name in of_file(file, infos, self._places):
            tensors[name], self._extents[name] = infos[name], extents[name]

    def read(self, reads: Sequence[Read]) -> None:
        """One ``readinto`` per range; files are opened anew, so that a lost file is noticed."""
        by_file: dict[str, list[Read]] = {}
        for wish in reads:
            by_file.setdefault(self._extents[wish.name].file, []).append(wish)
        for file, wishes in by_file.items():
            try:
                with (self._folder / file).open("rb", buffering=0) as stream:
                    for wish in wishes:
                        stream.seek(self._extents[wish.name].offset + wish.start)
                        fill(stream, wish.into)
            except (OSError, EOFError) as error:
                raise RelexError(
                    f"{self._folder / file} changed or vanished during the run "
                    f"({error or 'it is shorter now'}); nothing was written"
                ) from error

    def fingerprint(self) -> list[Any]:
        """Label, and size and time of change of every file."""
        stats = [(self._folder / file).stat() for file in self._files]
        return [self.label, *([s.st_size, s.st_mtime_ns] for s in stats)]


def fill(stream: Any, into: memoryview) -> None:
    """Read from ``stream`` until ``into`` is full. Raises EOFError when there is not enough."""
    while len(into):
        got = stream.readinto(into)
        if not got:
            raise EOFError
        into = into[got:]


class PickleSource(Source):
    """A folder of ``.bin`` files, mapped and unpickled weights-only (no code runs)."""

    def __init__(
        self,
        folder: Path,
        label: str,
        files: Sequence[str],
        places: Mapping[str, str] | None = None,
    ) -> None:
        self.label = label
        self._loaded: dict[str, torch.Tensor] = {}
        for file in files:
            held = _load_pickle(folder / file)
            self._loaded |= {name: held[name] for name in of_file(file, held, places or {})}
        check_promised(self._loaded, places or {}, label)
        self._fingerprint = [label, *([f, (folder / f).stat().st_size] for f in files)]
        self.tensors = {
            name: TensorInfo(tensor.dtype, tuple(tensor.shape))
            for name, tensor in self._loaded.items()
        }

    def read(self, reads: Sequence[Read]) -> None:
        """Copy the bytes out of the mapped files."""
        for wish in reads:
            flat = self._loaded[wish.name].contiguous().reshape(-1)
            size = len(wish.into) // flat.element_size()
            first = wish.start // flat.element_size()
            target = torch.frombuffer(wish.into, dtype=flat.dtype, count=size)
            target.copy_(flat[first : first + size])

    def fingerprint(self) -> list[Any]:
        """Label, names and sizes of the files."""
        return self._fingerprint


def _load_pickle(path: Path) -> dict[str, torch.Tensor]:
    import pickle

    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, OSError, pickle.UnpicklingError, EOFError) as error:
        raise RelexError(
            f"{path} cannot be read as weights only: it is corrupt, in torch's format from before "
            "1.6, or holds objects that would run code; save it as safetensors"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not isinstance(state, dict):
        raise RelexError(f"{path} holds no dictionary of tensors; save it as safetensors")
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def of_file(file: str, held: Iterable[str], places: Mapping[str, str]) -> list[str]:
    """Return the tensors to take from a file that holds ``held``.

    Args:
        file: name of the file.
        held: names of the tensors in it.
        places: tensor → file, as the index of shards has it; a tensor that it does not name is
            taken from where it is.
    """
    return [name for name in held if places.get(name, file) == file]


def check_promised(found: Collection[str], places: Mapping[str, str], label: str) -> None:
    """Raise RelexError for a tensor that is not in the shard where the index puts it."""
    for name, file in places.items():
        if name not in found:
            raise RelexError(
                f"{label}: {file} lacks the tensor {name} that its index promises; fetch it again"
            )


def open_folder(folder: Path, label: str, files: Sequence[str] = ()) -> Source:
    """The source of a model folder, or of some ``files`` of it.

    Raises RelexError for anything that is not whole.
    """
    places: Mapping[str, str] = {}
    if not files:
        names = [path.name for path in folder.iterdir() if path.is_file()]
        found = require_weights(names, folder, label)
        files, places = found.files, found.places
    kind = SafetensorsSource if files[0].endswith(".safetensors") else PickleSource
    return kind(folder, label, files, places)
