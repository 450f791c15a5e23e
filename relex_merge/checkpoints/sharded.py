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
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from relex_merge.checkpoints.dcp_metadata import read_metadata
from relex_merge.checkpoints.files import ADAPTER_CONFIG, CONFIG, NotWholeError, weights_among
from relex_merge.checkpoints.json_files import parse_object, peek_json
from relex_merge.checkpoints.series import Kind
from relex_merge.checkpoints.shard_file import (
    check_shard_file,
    read_description,
    read_shard_file,
    reader,
)
from relex_merge.errors import RelexError
from relex_merge.formatting import some
from relex_merge.places.pin import PlacePin
from relex_merge.places.ranges import FileReader, Transfers

if TYPE_CHECKING:
    from relex_merge.checkpoints.archive import Reader

Form: TypeAlias = Literal["fsdp", "dcp", "dcp-safetensors", "full"]

FSDP_CONFIG = "fsdp_config.json"
METADATA = ".metadata"
TRAINER_FOLDER = "pytorch_model_fsdp_0"  # accelerate's name
TRAINER_FILE = "pytorch_model_fsdp.bin"
ACTOR = "actor"  # verl's folder of the policy
COMPANIONS = "huggingface"  # verl's folder of configuration and tokenizer
LORA_FOLDER = "lora_adapter"  # and of an adapter
LORA_META = "lora_train_meta.json"  # rank and α of verl's LoRA runs
_RANK = re.compile(r"model_world_size_(\d{1,6})_rank_(\d{1,6})\.pt")
_DCP_SAFETENSORS = re.compile(r"shard-(\d{1,6})-model-(\d{1,6})-of-(\d{1,6})\.safetensors")
_DCP = ".distcp"
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


def is_sharded(names: Collection[str], below: Collection[str] = ()) -> bool:
    """Whether a folder is meant to hold a checkpoint in shards, be it whole or not.

    Args:
        names: of the files in it.
        below: of the folders in it.
    """
    return (
        METADATA in names
        or TRAINER_FILE in names
        or TRAINER_FOLDER in below
        or any(_RANK.fullmatch(name) or _DCP_SAFETENSORS.fullmatch(name) for name in names)
    )


def is_weights(name: str) -> bool:
    """Whether a file is, or describes, the weights of a checkpoint in shards."""
    return (
        name in (METADATA, TRAINER_FILE)
        or name.endswith(_DCP)
        or bool(_RANK.fullmatch(name) or _DCP_SAFETENSORS.fullmatch(name))
    )


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

    if any(map(_RANK.fullmatch, names)):
        return made("fsdp", _of_all_ranks(names, folder))
    if METADATA in names:
        return made("dcp", _of_dcp(names, folder))
    if inner is not None:
        return made("dcp", _of_dcp(inner, folder / TRAINER_FOLDER), folder / TRAINER_FOLDER)
    if TRAINER_FILE in names:
        return made("full", (TRAINER_FILE,))
    return made("dcp-safetensors", _of_dcp_safetensors(names))


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


def _of_all_ranks(names: Iterable[str], folder: Path) -> tuple[str, ...]:
    """Return verl's files in the order of the ranks, of one world size."""
    worlds: dict[int, set[int]] = {}
    for found in filter(None, map(_RANK.fullmatch, names)):
        worlds.setdefault(int(found[1]), set()).add(int(found[2]))
    said: object = peek_json(folder / FSDP_CONFIG).get("world_size")
    if len(worlds) > 1 and said not in worlds:
        raise NotWholeError(
            f"it holds shards of {some([str(w) for w in sorted(worlds)])} ranks, and no "
            f"{FSDP_CONFIG} says which of them count: move those of the earlier save away"
        )
    world = next(world for world in worlds if len(worlds) == 1 or world == said)
    if said is not None and said != world:
        raise NotWholeError(
            f"its shards are those of {world} ranks, and {FSDP_CONFIG} says {said}: the ranks of "
            "two saves are mixed, or a file has been renamed"
        )
    missing = sorted(set(range(world)) - worlds[world])
    if missing:
        raise NotWholeError(
            f"rank{'s' * (len(missing) > 1)} {some([str(rank) for rank in missing])} of {world} "
            "missing: it is still being written, or not all of it was copied here"
        )
    if beyond := sorted(rank for rank in worlds[world] if rank >= world):
        raise NotWholeError(f"a file is of rank {beyond[0]}, and there are {world} ranks")
    return tuple(f"model_world_size_{world}_rank_{rank}.pt" for rank in range(world))


def _of_dcp(names: Iterable[str], folder: Path) -> tuple[str, ...]:
    names = sorted(names)
    if METADATA not in names:
        raise NotWholeError(
            f"{folder.name} has no {METADATA}, which is written last: it is still being written"
        )
    return tuple(name for name in names if name.endswith(_DCP))


def _of_dcp_safetensors(names: Iterable[str]) -> tuple[str, ...]:
    files = sorted(name for name in names if _DCP_SAFETENSORS.fullmatch(name))
    shards, parts = set(), set()
    total = 0
    for found in filter(None, map(_DCP_SAFETENSORS.fullmatch, files)):
        shards.add(int(found[1]))
        parts.add(int(found[2]))
        total = max(total, int(found[3]))
    missing = sorted(set(range(1, max(shards) + 1)) - shards)
    if missing:
        raise NotWholeError(f"shard {missing[0]} of at least {max(shards)} is missing")
    absent = sorted(set(range(1, total + 1)) - parts)
    if absent:
        raise NotWholeError(f"no shard of file {absent[0]} of {total} is there")
    return tuple(files)
