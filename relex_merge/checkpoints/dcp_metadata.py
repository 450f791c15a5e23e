"""``.metadata`` of ``torch.distributed.checkpoint``: which tensors there are, and where they lie.

The file is a pickle of ``torch.distributed.checkpoint.metadata.Metadata``; it is read by
:mod:`relex_merge.checkpoints.inert`, so that nothing in it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relex_merge.checkpoints.files import NotWholeError
from relex_merge.checkpoints.inert import (
    InertError,
    RefusedNameError,
    Shape,
    TensorEntry,
    unpickle,
)

# First parts of names that are not the model's.
_NOT_THE_MODEL = ("optim", "lr_scheduler", "scheduler", "train_state", "dataloader", "rng", "loss")
# First parts of names in transformers' models.
_MODELS = ("model.", "lm_head.", "transformer.", "gpt_neox.", "backbone.", "base_model.")
_SHOWN = 200  # characters of an error


@dataclass(frozen=True)
class Chunk:
    """A box of a tensor, and the archive that holds it.

    Attributes:
        offsets: of its first entry in the tensor.
        sizes: of the box.
        file: in the folder.
        begin: offset in bytes of the archive in the file.
        length: bytes of the archive.
    """

    offsets: Shape
    sizes: Shape
    file: str
    begin: int
    length: int


@dataclass(frozen=True)
class Entry:
    """A tensor of the model. dtype: as safetensors spells it."""

    dtype: str
    shape: Shape
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class Metadata:
    """The model's tensors by their names without the path of the model in the saved state."""

    tensors: Mapping[str, Entry]

    def check(self, size_of: Callable[[str], int]) -> None:
        """Raise NotWholeError when a file is missing, or shorter than the metadata say.

        Args:
            size_of: tells the bytes of a file; it raises OSError where it is not there.
        """
        ends: dict[str, int] = {}
        for entry in self.tensors.values():
            for chunk in entry.chunks:
                ends[chunk.file] = max(ends.get(chunk.file, 0), chunk.begin + chunk.length)
        for file, end in ends.items():
            try:
                size = size_of(file)
            except OSError as error:
                raise NotWholeError(f"{file} cannot be read ({error.strerror})") from error
            if size < end:
                raise NotWholeError(f"{file} is cut off: {size:,} bytes of {end:,}")


def read_metadata(path: Path) -> Metadata:
    """Read the metadata of a folder.

    Raises:
        NotWholeError: it is not what torch writes, or names what is no part of it, which was not
            run.
    """
    try:
        record = unpickle(path.read_bytes()).__dict__
        chunks = _chunks(record["storage_data"])
        paths = record.get("planner_data") or {}
        found = {}
        for name, entry in record["state_dict_metadata"].items():
            model = _name_in_model(name, paths.get(name))
            if model is not None and isinstance(entry, TensorEntry):
                found[model] = _entry(name, entry.__dict__, chunks)
    except OSError as error:
        raise NotWholeError(f"{path.name} cannot be read ({error.strerror})") from error
    except RefusedNameError as error:
        raise NotWholeError(
            f"{path.name} names {str(error)[:_SHOWN]}, which is no part of a checkpoint; nothing "
            "of it was run"
        ) from error
    except (InertError, KeyError, AttributeError, TypeError, ValueError, IndexError) as error:
        raise NotWholeError(
            f"{path.name} is not what torch.distributed.checkpoint writes ({str(error)[:_SHOWN]})"
        ) from error
    return Metadata(_without_prefix(found))


def _chunks(storage: Mapping[Any, Any]) -> dict[str, list[tuple[Shape, str, int, int]]]:
    """Return tensor → (offsets, file, begin, length) of each of its chunks."""
    found: dict[str, list[tuple[Shape, str, int, int]]] = {}
    for index, info in storage.items():
        where, what = index.__dict__, info.__dict__
        if what.get("transform_descriptors"):
            raise NotWholeError("its files are compressed, so that no ranges of them can be read")
        file = what["relative_path"]
        if Path(file).name != file:
            raise NotWholeError(f"it names {str(file)[:_SHOWN]!r}, which lies outside its folder")
        place = (tuple(where.get("offset") or ()), file, int(what["offset"]), int(what["length"]))
        found.setdefault(where["fqn"], []).append(place)
    return found


def _entry(
    name: str, fields: Mapping[str, Any], places: Mapping[str, list[tuple[Shape, str, int, int]]]
) -> Entry:
    dtype = fields["properties"].__dict__["state"][0]
    where = {place[0]: place[1:] for place in places[name]}
    chunks = []
    for chunk in fields["chunks"]:
        box = chunk.__dict__
        offsets = tuple(box["offsets"])
        chunks.append(Chunk(offsets, tuple(box["sizes"]), *where[offsets]))
    shape = tuple(fields["size"])
    numbers = [*shape, *(n for c in chunks for n in (*c.offsets, *c.sizes, c.begin, c.length))]
    if type(dtype) is not str or not all(type(n) is int and n >= 0 for n in numbers):
        raise TypeError(f"{name} is described as torch never does")
    return Entry(dtype, shape, tuple(chunks))


def _name_in_model(name: str, path: Any) -> str | None:
    """Return a tensor's name without the keys of the dictionaries around it; None beside the model.

    Args:
        name: all keys with dots between.
        path: the keys, as the planner notes them.
    """
    keys = path if isinstance(path, tuple) and all(isinstance(k, str) for k in path) else (name,)
    if name.startswith(_NOT_THE_MODEL) or any(k.startswith(_NOT_THE_MODEL) for k in keys[:-1]):
        return None
    return str(keys[-1])


def _without_prefix(tensors: dict[str, Entry]) -> dict[str, Entry]:
    """Take ``model.`` off where all names have it before the model's own names."""
    for prefix in ("state_dict.model.", "app.model.", "model."):
        inner = [name[len(prefix) :] for name in tensors if name.startswith(prefix)]
        own = prefix != "model." or any(name.startswith(_MODELS) for name in inner)
        if tensors and len(inner) == len(tensors) and own:
            return {name[len(prefix) :]: entry for name, entry in tensors.items()}
    return tensors
