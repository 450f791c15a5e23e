"""``.bin`` files of torch as a source: read range by range, and no code in them runs.

Such a file is a zip archive: a pickle that describes the tensors, and a record of bytes for each
storage, uncompressed. torch reads the pickle in its mode for weights only and with fake tensors,
which stand for the storages without touching them and know where in the file they begin
(``_checkpoint_offset``, as torch's tutorial on GPUDirect Storage has it).
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import torch

from relex_merge.errors import RelexError
from relex_merge.weights.files import Extent, FileSource
from relex_merge.weights.shards import tensors_of
from relex_merge.weights.source import Read, TensorInfo

_LOCAL_HEADER = 30  # bytes of a zip record's own header, before its name and its extra field


@dataclass(frozen=True)
class _Stored:
    """One tensor of a ``.bin`` file.

    Attributes:
        info: dtype and shape.
        start: offset in bytes from the beginning of the file.
        strides: numbers from one entry to the next along each axis; None where the numbers lie in
            the order of the shape.
        length: numbers from the first to the last in the file.
    """

    info: TensorInfo
    start: int
    strides: tuple[int, ...] | None
    length: int


class PickleSource(FileSource):
    """The tensors of some ``.bin`` files.

    Args:
        folder: where the files are.
        label: names the model in messages.
        files: their names.
        places: tensor → file, as for :class:`~relex_merge.weights.safetensors.SafetensorsSource`.

    Raises:
        RelexError: a file is not whole, holds more than plain tensors, or lacks a tensor that the
            index promises.
    """

    def __init__(
        self,
        folder: Path,
        label: str,
        files: Sequence[str],
        places: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder, label)
        self._contents: list[str] = []
        self._strided: dict[str, _Stored] = {}
        held = {file: self._tensors(file) for file in files}
        tensors: dict[str, TensorInfo] = {}
        for name, file in tensors_of(held, places or {}, label):
            stored = held[file][name]
            tensors[name] = stored.info
            self._extents[name] = Extent(file, stored.start)
            if stored.strides is not None:
                self._strided[name] = stored
        self.tensors = tensors

    def fingerprint(self) -> list[Any]:
        """Return label, states of the files, and a digest of the checksums that torch wrote."""
        return [*super().fingerprint(), *self._contents]

    def read(self, reads: Sequence[Read]) -> None:
        """Fill every buffer; a tensor whose numbers are not in the order of its shape costs more.

        Raises:
            SourceChangedError: a file is gone, or not in the state that it was opened in.
        """
        super().read([wanted for wanted in reads if wanted.name not in self._strided])
        for wanted in reads:
            if wanted.name in self._strided:
                self._gather(wanted, self._strided[wanted.name])

    def _gather(self, wanted: Read, stored: _Stored) -> None:
        """Read a whole tensor, bring its numbers into order and hand over those that are wanted."""
        assert stored.strides is not None
        dtype = stored.info.dtype
        raw = torch.empty(stored.length * dtype.itemsize, dtype=torch.uint8)
        super().read([Read(wanted.name, 0, raw.numpy().data)])
        whole = raw.view(dtype).as_strided(stored.info.shape, stored.strides).contiguous()
        flat = whole.reshape(-1).view(torch.uint8)
        wanted.into[:] = flat[wanted.start : wanted.start + len(wanted.into)].numpy().data

    def _tensors(self, file: str) -> dict[str, _Stored]:
        path = self._folder / file
        try:
            with path.open("rb", buffering=0) as stream:
                records, contents = _records(stream, self.mark(file, stream))
                stream.seek(0)
                state = _unpickled(stream)
        except OSError as error:
            raise RelexError(f"{path} cannot be read ({error.strerror}); fetch it again") from error
        except _QuantizedError as error:
            raise RelexError(
                f"{path} holds quantized tensors; extrapolation needs the unquantized checkpoints"
            ) from error
        except _BrokenError as error:
            raise RelexError(
                f"{path} cannot be read as weights only: it is corrupt, in torch's format from "
                "before 1.6, or holds objects that would run code; save it as safetensors"
            ) from error
        state = state.get("state_dict", state) if isinstance(state, dict) else None
        if not isinstance(state, dict):
            raise RelexError(f"{path} holds no dictionary of tensors; save it as safetensors")
        self._contents.append(contents)
        tensors = {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}
        return {name: _stored(path, name, tensor, records) for name, tensor in tensors.items()}


class _BrokenError(Exception):
    """A file is not what torch writes, or holds more than weights."""


class _QuantizedError(Exception):
    """A file holds tensors that torch cannot describe without making them."""


def _records(stream: FileIO, size: int) -> tuple[dict[int, int], str]:
    """Return offset → bytes of every uncompressed record, and a digest of all their checksums.

    Args:
        stream: the file.
        size: its bytes.

    Raises:
        _BrokenError: it is no such archive, or written on a machine of the other byte order.
    """
    found: dict[int, int] = {}
    try:
        with zipfile.ZipFile(stream) as archive:
            infos = archive.infolist()
        for info in infos:
            stream.seek(info.header_offset)
            name, extra = struct.unpack_from("<HH", stream.read(_LOCAL_HEADER), _LOCAL_HEADER - 4)
            begin = info.header_offset + _LOCAL_HEADER + name + extra
            if info.compress_type != zipfile.ZIP_STORED or begin + info.file_size > size:
                continue
            found[begin] = info.file_size
            if info.filename.endswith("/byteorder"):
                stream.seek(begin)
                if stream.read(info.file_size) != sys.byteorder.encode():
                    raise _BrokenError("its numbers are in the other byte order")
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError) as error:
        raise _BrokenError(str(error)) from error
    sums = json.dumps([(info.filename, info.file_size, info.CRC) for info in infos])
    return found, hashlib.sha256(sums.encode()).hexdigest()


def _unpickled(stream: FileIO) -> Any:
    """Return what torch finds in a file, weights only, with fake tensors for the real ones.

    Raises:
        _QuantizedError: it holds tensors that are no plain numbers.
        _BrokenError: anything else is wrong with it.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    try:
        with FakeTensorMode():
            return torch.load(stream, weights_only=True)
    except OSError:
        raise
    except NotImplementedError as error:
        raise _QuantizedError(str(error)) from error
    except Exception as error:  # a pickle is a program, and a broken one fails in any way
        raise _BrokenError(str(error)) from error


def _stored(path: Path, name: Any, tensor: torch.Tensor, records: Mapping[int, int]) -> _Stored:
    """Return where a tensor lies. Raises RelexError for one that is not plain numbers in a file."""
    plain = tensor.layout == torch.strided and not (
        tensor.is_quantized or tensor.is_conj() or tensor.is_neg()
    )
    begin = getattr(tensor.untyped_storage(), "_checkpoint_offset", None) if plain else None
    if begin is None or not isinstance(name, str):
        raise RelexError(
            f"{path}: {name} is quantized, sparse or otherwise not stored as plain numbers; "
            "extrapolation needs the unquantized checkpoints"
        )
    info = TensorInfo(tensor.dtype, tuple(tensor.shape))
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    length = 1 + sum((n - 1) * step for n, step in steps) if info.numel else 0
    first = tensor.storage_offset() * info.dtype.itemsize
    if first + length * info.dtype.itemsize > records.get(begin, -1):
        raise RelexError(f"{path} is corrupt: {name} lies outside its records; fetch it again")
    strides = None if tensor.is_contiguous() else tuple(tensor.stride())
    return _Stored(info, begin + first, strides, length)
