"""A checkpoint in the shards of its trainer's ranks, opened by the source for its form."""

from __future__ import annotations

from relex_merge.checkpoints.sharded import Sharded, holds_adapter
from relex_merge.places.ranges import Transfers
from relex_merge.weights.dcp import DcpSafetensorsSource, DcpSource
from relex_merge.weights.files import DiskFiles
from relex_merge.weights.fsdp import FsdpSource
from relex_merge.weights.names import of_adapter, of_model
from relex_merge.weights.pickle import PickleSource
from relex_merge.weights.place_files import PlaceFiles
from relex_merge.weights.source import Source


class FullStateSource(PickleSource):
    """The tensors in accelerate's file of the full state.

    Args:
        sharded: the checkpoint, of the form ``full``.
        label: names the model in messages.

    Raises:
        RelexError: the file is not whole, or holds more than weights.
    """

    def __init__(self, sharded: Sharded, label: str) -> None:
        super().__init__(sharded.folder, label, sharded.files)
        rename = of_adapter if holds_adapter(self.tensors) else of_model
        self._extents = rename(self._extents, label)
        self._strided = rename(self._strided, label)
        self.tensors = rename(self.tensors, label)


def open_sharded(sharded: Sharded, label: str, transfers: Transfers | None = None) -> Source:
    """Open the weights of a checkpoint in shards; what describes them is read, and no number.

    Args:
        sharded: the checkpoint.
        label: names the model in messages.
        transfers: shared by all sources of a run that are in places.

    Raises:
        RelexError: it is not whole.
    """
    if sharded.form == "full" and sharded.pin is None:
        return FullStateSource(sharded, label)
    files: DiskFiles | PlaceFiles = DiskFiles(sharded.folder)
    if sharded.pin is not None:
        folder = sharded.folder.relative_to(sharded.checkpoint).as_posix()
        files = PlaceFiles(sharded.pin, folder, transfers or sharded.transfers)
    if sharded.form == "dcp":
        return DcpSource(sharded, files, label)
    if sharded.form == "dcp-safetensors":
        return DcpSafetensorsSource(sharded, files, label)
    return FsdpSource(sharded, files, label)
