"""Checkpoints in the shards of their trainers' ranks: which layout a folder has, and is it whole?

Four forms, told apart by the names of the files:

- ``fsdp``: what verl writes, ``model_world_size_W_rank_R.pt`` for each rank, with
  ``fsdp_config.json``, and configuration and tokenizer in ``huggingface/``.
- ``dcp``: a folder of ``torch.distributed.checkpoint``, ``.metadata`` and ``*.distcp``;
  accelerate and the Trainer write it into ``checkpoint-N/pytorch_model_fsdp_0``.
- ``dcp-safetensors``: the same in safetensors files, ``shard-00001-model-00001-of-00001``.
- ``full``: accelerate's full state dict in one file, ``pytorch_model_fsdp.bin``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from relex_merge.checkpoints.dcp_metadata import read_metadata
from relex_merge.checkpoints.files import ADAPTER_CONFIG, CONFIG, NotWholeError, weights_among
from relex_merge.checkpoints.json_files import parse_object
from relex_merge.checkpoints.series import Kind
from relex_merge.checkpoints.shard_file import (
    check_shard_file,
    read_description,
    read_shard_file,
    reader,
)
from relex_merge.checkpoints.shard_names import (
    ACTOR,
    COMPANIONS,
    LORA_FOLDER,
    METADATA,
    TRAINER_FILE,
    TRAINER_FOLDER,
    are_of_ranks,
    is_sharded,
    of_all_ranks,
    of_dcp,
    of_dcp_safetensors,
)
from relex_merge.errors import RelexError
from relex_merge.places.pin import PlacePin
from relex_merge.places.ranges import FileReader, Transfers

if TYPE_CHECKING:
    from relex_merge.checkpoints.archive import Reader

Form: TypeAlias = Literal["fsdp", "dcp", "dcp-safetensors", "full"]

_LORA = (".lora_A.", ".lora_B.", ".lora_embedding_A", ".lora_embedding_B")


@dataclass(frozen=True)
class Sharded:
    """A checkpoint in shards, on this disk or in a place.

    Attributes:
        form: which kind of files they are.
        checkpoint: the folder of the checkpoint; of one in a place, what is here of it.
        folder: the folder that the files are in, which is it or is in it.
        files: names of the files with weights, in the order of the ranks.
        pin: the files where the weights lie in a place, by their paths in the checkpoint.
        transfers: reads what they say there.
    """

    form: Form
    checkpoint: Path
    folder: Path
    files: tuple[str, ...]
    pin: PlacePin | None = None
    transfers: Transfers = field(default_factory=Transfers, repr=False, compare=False)

    @property
    def address(self) -> str:
        """Where the checkpoint lies, for messages."""
        return self.pin.place.address if self.pin else str(self.checkpoint)

    @property
    def layout(self) -> Literal["fsdp", "dcp"]:
        """Which library wrote it."""
        return "dcp" if self.form.startswith("dcp") else "fsdp"

    def within(self, file: str) -> str:
        """Return the path of a file with weights in the checkpoint."""
        return (self.folder.relative_to(self.checkpoint) / file).as_posix()

    @property
    def companions(self) -> Path:
        """The folder with configuration and tokenizer; the checkpoint's where there is none."""
        inner = self.checkpoint / COMPANIONS
        return inner if (inner / CONFIG).is_file() else self.checkpoint

    @property
    def adapter_folder(self) -> Path | None:
        """The folder with an adapter's configuration, None where there is none."""
        names = ("", COMPANIONS, LORA_FOLDER)
        folders = [self.checkpoint / name for name in names]
        return next((f for f in folders if (f / ADAPTER_CONFIG).is_file()), None)

    @property
    def size(self) -> int:
        """Bytes of the files together."""
        return sum(map(self.size_of, self.files))

    def size_of(self, file: str) -> int:
        """Return the bytes of a file. Raises OSError where it is not there."""
        if self.pin is None:
            return (self.folder / file).stat().st_size
        state = self.pin.states.get(self.within(file))
        if state is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), file)
        return state.size

    @contextmanager
    def opened(self, file: str) -> Iterator[Reader]:
        """Yield what reads ranges of a file. Raises NotWholeError where it cannot be opened."""
        if self.pin is not None:
            yield FileReader(self.pin.file(self.within(file)), self.transfers)
            return
        try:
            with (self.folder / file).open("rb", buffering=0) as stream:
                yield reader(stream)
        except OSError as error:
            raise NotWholeError(f"{file} cannot be read ({error.strerror})") from error

    @cached_property
    def names(self) -> dict[str, str]:
        """Tensor, by its name in the files → its dtype; of a rank, its first.

        Raises:
            NotWholeError: the file cannot be read as weights.
        """
        if self.form == "dcp":
            entries = read_metadata(self.folder / METADATA).tensors
            return {name: entry.dtype for name, entry in entries.items()}
        first = self.files[0]
        with self.opened(first) as read:
            if self.form == "dcp-safetensors":
                return _safetensors_names(read, self.size_of(first), first)
            parts = read_shard_file(read, self.size_of(first), first).parts
        return {name: part.dtype for name, part in parts.items()}

    @cached_property
    def kind(self) -> Kind:
        """Whether it holds an adapter, alone or beside the model that it is on."""
        if self.form in {"fsdp", "full"}:  # to look for a name is faster than to read them all
            first = self.files[0]
            with self.opened(first) as read:
                text = read_description(read, self.size_of(first), first)
            return "adapter" if any(end.encode() in text for end in _LORA) else "model"
        return "adapter" if holds_adapter(self.names) else "model"

    @property
    def dtype(self) -> str | None:
        """The dtype of most of its tensors, as safetensors spells it."""
        dtypes = list(self.names.values())
        return max(set(dtypes), key=dtypes.count) if dtypes else None

    def check(self) -> None:
        """Raise NotWholeError when a file is cut off or is no file of weights.

        In a place, whose files appear whole, this is told of the first file alone, and a run tells
        it of the others.
        """
        if self.form in {"fsdp", "full"} and self.pin is None:
            for file in self.files:
                with self.opened(file) as read:
                    check_shard_file(read, self.size_of(file), file)
        if self.form == "dcp":
            read_metadata(self.folder / METADATA).check(self.size_of)
        if not self.names:
            raise NotWholeError(f"{self.files[0]} holds no tensors")


def find_sharded(folder: Path) -> Sharded | None:
    """Return the shards in a folder, None where there are none.

    Raises:
        NotWholeError: there are, but not all of them.
    """
    try:
        entries = list(folder.iterdir())
    except OSError:
        return None
    names = {path.name for path in entries if not path.is_dir()}
    inner = None
    if (folder / TRAINER_FOLDER).is_dir():
        inner = {path.name for path in (folder / TRAINER_FOLDER).iterdir()}
    return sharded_among(folder, names, inner)


def sharded_among(
    folder: Path,
    names: Collection[str],
    inner: Collection[str] | None,
    pin: PlacePin | None = None,
    transfers: Transfers | None = None,
) -> Sharded | None:
    """Return the shards that names of files tell of, None where there are none.

    Args:
        folder: of the checkpoint; on this disk, it has what describes the shards at least.
        names: of the files in it.
        inner: of the files in accelerate's folder in it, None without one.
        pin: the files where they lie in a place.
        transfers: reads them there.

    Raises:
        NotWholeError: there are shards, but not all of them.
    """
    if not is_sharded(names, () if inner is None else (TRAINER_FOLDER,)):
        return None

    def made(form: Form, files: tuple[str, ...], place: Path = folder) -> Sharded:
        return Sharded(form, folder, place, files, pin, transfers or Transfers())

    if are_of_ranks(names):
        return made("fsdp", of_all_ranks(names, folder))
    if METADATA in names:
        return made("dcp", of_dcp(names, folder))
    if inner is not None:
        return made("dcp", of_dcp(inner, folder / TRAINER_FOLDER), folder / TRAINER_FOLDER)
    if TRAINER_FILE in names:
        return made("full", (TRAINER_FILE,))
    return made("dcp-safetensors", of_dcp_safetensors(names))


def require_sharded(folder: Path, label: str) -> Sharded | None:
    """Return the shards in a folder that has no weights as a whole, None where there are none.

    Args:
        folder: of the checkpoint, or verl's ``global_step_N`` above it.
        label: names it in messages.

    Raises:
        RelexError: not all of the shards are there, or they cannot be read as weights.
    """
    try:
        names = [path.name for path in folder.iterdir()]
        if weights_among(names) is not None:
            return None
        found = find_sharded(folder) or find_sharded(folder / ACTOR)
        if found is not None:
            _ = found.kind  # which is not known of what cannot be read
    except OSError as error:
        raise RelexError(f"{label}: {folder} cannot be read ({error.strerror})") from error
    except NotWholeError as error:
        raise RelexError(f"{label}: {error}") from error
    return found


def holds_adapter(names: Iterable[str]) -> bool:
    """Whether tensors are an adapter's, alone or beside the model that it is on."""
    return any(end in name for name in names for end in _LORA)


def companions_of(folder: Path) -> Path:
    """Return the folder that has configuration and tokenizer of a checkpoint in a folder."""
    if (folder / CONFIG).is_file():
        return folder
    try:
        found = find_sharded(folder) or find_sharded(folder / ACTOR)
    except NotWholeError:
        return folder
    return found.companions if found else folder


def _safetensors_names(read: Reader, size: int, file: str) -> dict[str, str]:
    """Return tensor → dtype of a safetensors file, whose header begins with its length."""
    length = int.from_bytes(read(0, 8), "little")
    try:
        entries = parse_object(read(8, length) if length <= size else b"")
        entries.pop("__metadata__", None)
        ends = [entry["data_offsets"][1] for entry in entries.values()]
        dtypes = {name: str(entry["dtype"]) for name, entry in entries.items()}
        whole = 8 + length + max(ends, default=0) == size
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise NotWholeError(f"{file} is not whole ({error})") from error
    if not whole:
        raise NotWholeError(f"{file} is not whole: its header does not go with its {size:,} bytes")
    return dtypes
