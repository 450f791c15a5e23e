"""Safetensors files of a folder as a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from relex_merge.errors import RelexError
from relex_merge.weights.files import Extent, FileSource
from relex_merge.weights.header import (
    LENGTH_BYTES,
    Entry,
    HeaderError,
    header_length,
    parse_header,
)
from relex_merge.weights.shards import tensors_of
from relex_merge.weights.source import TensorInfo


class SafetensorsSource(FileSource):
    """The tensors of some safetensors files.

    Args:
        folder: where the files are.
        label: names the model in messages.
        files: their names.
        places: tensor → file, as an index of shards has it; it decides which tensors there are, and
            where a tensor comes from that two files hold. Empty: everything in the files.

    Raises:
        RelexError: a file is not whole, or lacks a tensor that the index promises.
    """

    def __init__(
        self,
        folder: Path,
        label: str,
        files: Sequence[str],
        places: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder, label)
        held = {file: self._entries(file) for file in files}
        tensors: dict[str, TensorInfo] = {}
        for name, file in tensors_of(held, places or {}, label):
            entry = held[file][name]
            tensors[name] = entry.info
            self._extents[name] = Extent(file, entry.start)
        self.tensors = tensors

    def _entries(self, file: str) -> dict[str, Entry]:
        path = self._folder / file
        try:
            with path.open("rb", buffering=0) as stream:
                size = self.mark(file, stream)
                text = stream.read(header_length(stream.read(LENGTH_BYTES), size))
            return parse_header(text, size, self.label)
        except HeaderError as error:
            raise RelexError(f"{path} {error}; fetch it again") from error
        except OSError as error:
            raise RelexError(f"{path} cannot be read ({error.strerror}); fetch it again") from error
