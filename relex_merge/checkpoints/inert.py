"""What the pickle in a shard file says, read by an unpickler that runs nothing.

A pickle names classes and functions and asks for them to be called. Here every name that torch
writes into a shard (tensors, DTensor, ShardedTensor, device meshes, placements, the metadata of
``torch.distributed.checkpoint``) stands for a record that does nothing but keep what it was given,
and any other name is refused. torch is not imported, and no process group is needed.
"""

from __future__ import annotations

import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, TypeAlias

from relex_merge.checkpoints.opcodes import check_opcodes

# torch's name of a dtype → that of the safetensors format.
_DTYPES = {
    "float64": "F64",
    "double": "F64",
    "float32": "F32",
    "float": "F32",
    "float16": "F16",
    "half": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
_STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "UntypedStorage": "",
}

Shape: TypeAlias = tuple[int, ...]


class RefusedNameError(Exception):
    """A pickle names something that is no part of a shard, and would have run it."""


class InertError(Exception):
    """A pickle is broken, or not one that describes weights."""


class Stored(NamedTuple):
    """A tensor as it lies in the file.

    Attributes:
        dtype: as safetensors spells it.
        storage: key of its storage.
        offset: numbers in the storage before its first one.
        shape: of the tensor.
        strides: numbers from one entry to the next along each axis.
    """

    dtype: str
    storage: str
    offset: int
    shape: Shape
    strides: Shape


class Placement(NamedTuple):
    """How a tensor lies on one dimension of a device mesh.

    Attributes:
        kind: ``shard``, ``strided`` (sharded after the dimensions behind it), ``replicate``, or
            ``partial``.
        dim: the dimension of the tensor that is cut, -1 without one.
    """

    kind: str
    dim: int = -1


class Distributed(NamedTuple):
    """A rank's part of a DTensor.

    Attributes:
        dtype: as safetensors spells it.
        shape: of the whole tensor.
        local: the part, None where a rank has none.
        placements: one for each dimension of the mesh.
        mesh: sizes of the mesh.
        coordinate: of this rank in the mesh, None where the file does not say it.
    """

    dtype: str
    shape: Shape
    local: Stored
    placements: tuple[Placement, ...]
    mesh: Shape
    coordinate: Shape | None


class Shards(NamedTuple):
    """A rank's parts of a ShardedTensor: each with the offsets of its first entry."""

    dtype: str
    shape: Shape
    parts: tuple[tuple[Shape, Stored], ...]


@dataclass(frozen=True)
class Other:
    """An object that is no tensor; only its kind was kept."""

    kind: str


class _Frozen(type):
    """The type of record classes, which a pickle cannot change."""

    def __setattr__(cls, name: str, value: object) -> NoReturn:
        raise InertError(f"it would change {cls.__name__}")


class _Kept(metaclass=_Frozen):
    """An object of a class that torch writes: its arguments, and its attributes as they were set.

    A pickle sets attributes through ``__dict__``, by which no code runs.
    """

    def __new__(cls, *arguments: object) -> _Kept:
        self = super().__new__(cls)
        self.__dict__["arguments"] = arguments
        return self

    def __init__(self, *arguments: object) -> None:
        """Do nothing: the arguments are kept already."""


class _Plain(metaclass=_Frozen):
    """An object of a class that takes no arguments: its attributes as they were set."""


class _Tuple(_Kept):
    """An object whose state is a tuple."""

    def __setstate__(self, state: object) -> None:
        self.__dict__["state"] = state


class _Mesh(_Plain):
    """``torch.distributed.device_mesh.DeviceMesh``."""


class _Layout(_Plain):
    """The shape of a mesh."""


class _Spec(_Plain):
    """``DTensorSpec``."""


class _TensorMeta(_Kept):
    """``TensorMeta``: shape, strides and dtype of a whole tensor."""


class _Shard(_Kept):
    """The placement ``Shard``."""


class _StridedShard(_Kept):
    """The placement ``_StridedShard``."""


class _Replicate(_Kept):
    """The placement ``Replicate``."""


class _Partial(_Kept):
    """The placement ``Partial``."""


class _DTensor(_Kept):
    """Stands for the class itself, as the first argument of what makes one."""


class _ShardedTensor(_Tuple):
    """Stands for the class itself, as above; older torch pickles an object of it."""


class _Tensor(_Kept):
    """Stands for a class of plain tensors."""


class _Metadata(_Plain):
    """An object of ``torch.distributed.checkpoint``'s metadata."""


class TensorEntry(_Metadata):
    """``TensorStorageMetadata``: properties, size, chunks."""


class BytesEntry(_Metadata):
    """``BytesStorageMetadata``: something that is no tensor."""


class _Properties(_Tuple):
    """``TensorProperties``, whose state is a tuple with the dtype in front."""


_SHARDING = "torch.distributed._shard"
_DCP = "torch.distributed.checkpoint"
_PLACEMENTS = (
    "torch.distributed.tensor.placement_types",
    "torch.distributed._tensor.placement_types",
)
_SPECS = (
    "torch.distributed.tensor._dtensor_spec",
    "torch.distributed._tensor._dtensor_spec",
    "torch.distributed._tensor.placement_types",
)
_DTENSORS = (
    "torch.distributed.tensor",
    "torch.distributed._tensor",
    "torch.distributed.tensor._api",
    "torch.distributed._tensor.api",
)
_CLASSES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): tuple,
    ("torch", "Tensor"): _Tensor,
    ("torch.nn.parameter", "Parameter"): _Tensor,
    ("torch.nn.parameter", "Buffer"): _Tensor,
    ("torch.distributed.device_mesh", "DeviceMesh"): _Mesh,
    ("torch.distributed._mesh_layout", "_MeshLayout"): _Layout,
    ("torch.distributed._mesh_layout", "_FlatLayout"): _Layout,
    (f"{_SHARDING}.sharded_tensor.api", "ShardedTensor"): _ShardedTensor,
    (f"{_SHARDING}.sharded_tensor.api", "ProcessGroupState"): _Kept,
    (f"{_SHARDING}.sharded_tensor.shard", "Shard"): _Kept,
    (f"{_SHARDING}.sharded_tensor.metadata", "ShardedTensorMetadata"): _Kept,
    (f"{_SHARDING}.sharded_tensor.metadata", "TensorProperties"): _Properties,
    (f"{_SHARDING}.sharded_tensor.metadata", "MEM_FORMAT_ENCODING"): _Kept,
    (f"{_SHARDING}.metadata", "ShardMetadata"): _Kept,
    (f"{_SHARDING}.sharding_spec.chunk_sharding_spec", "ChunkShardingSpec"): _Kept,
    (f"{_SHARDING}.sharding_spec.api", "EnumerableShardingSpec"): _Kept,
    ("torch.distributed.remote_device", "_remote_device"): _Kept,
    (f"{_DCP}.metadata", "Metadata"): _Metadata,
    (f"{_DCP}.metadata", "TensorStorageMetadata"): TensorEntry,
    (f"{_DCP}.metadata", "BytesStorageMetadata"): BytesEntry,
    (f"{_DCP}.metadata", "ChunkStorageMetadata"): _Metadata,
    (f"{_DCP}.metadata", "MetadataIndex"): _Metadata,
    (f"{_DCP}.metadata", "StorageMeta"): _Metadata,
    (f"{_DCP}.metadata", "TensorProperties"): _Properties,
    (f"{_DCP}.metadata", "_MEM_FORMAT_ENCODING"): _Kept,
    (f"{_DCP}.filesystem", "_StorageInfo"): _Metadata,
    ("pathlib", "PosixPath"): _Kept,
    ("pathlib", "WindowsPath"): _Kept,
    ("pathlib._local", "PosixPath"): _Kept,
    ("pathlib._local", "WindowsPath"): _Kept,
    **{
        (module, name): kind
        for module in _PLACEMENTS
        for name, kind in (
            ("Shard", _Shard),
            ("_StridedShard", _StridedShard),
            ("Replicate", _Replicate),
            ("Partial", _Partial),
            ("_Partial", _Partial),
        )
    },
    **{
        (module, name): kind
        for module in _SPECS
        for name, kind in (
            ("DTensorSpec", _Spec),
            ("TensorMeta", _TensorMeta),
            ("ShardOrderEntry", _Kept),
        )
    },
    **{(module, "DTensor"): _DTensor for module in _DTENSORS},
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
    ("torch.storage", "UntypedStorage"): "",
}
# Functions that torch asks for, and the methods below that stand for them.
_FUNCTIONS = {
    ("torch._utils", "_rebuild_tensor_v2"): "_tensor",
    ("torch._utils", "_rebuild_tensor_v3"): "_tensor_v3",
    ("torch._utils", "_rebuild_parameter"): "_first",
    ("torch._utils", "_rebuild_parameter_with_state"): "_first",
    ("torch._utils", "_rebuild_wrapper_subclass"): "_wrapper",
    ("torch._tensor", "_rebuild_from_type_v2"): "_from_type",
    ("torch.serialization", "_get_layout"): "_nothing",
    ("torch", "device"): "_nothing",
    ("__builtin__", "getattr"): "_member",
    ("builtins", "getattr"): "_member",
}


class _Unpickler(pickle.Unpickler):
    """Finds records for the names of the list, and nothing else.

    What a pickle may call are bound methods, to which it can attach nothing, and frozen classes.
    """

    def find_class(self, module: str, name: str) -> Any:
        key = (module, name)
        method = _FUNCTIONS.get(key)
        if method is not None:
            return getattr(self, method)
        try:
            return _CLASSES[key]
        except KeyError:
            raise RefusedNameError(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        """Return dtype and key of a storage, which is all of it that there is."""
        return pid[1], pid[2]

    def _tensor(
        self, storage: tuple[str, str], offset: int, shape: Shape, strides: Shape, *_: object
    ) -> Stored:
        return Stored(storage[0], storage[1], offset, shape, strides)

    def _tensor_v3(  # torch's own order
        self,
        storage: tuple[str, str],
        offset: int,
        shape: Shape,
        strides: Shape,
        requires_grad: bool,
        hooks: object,
        dtype: str,
        *_: object,
    ) -> Stored:
        return Stored(dtype, storage[1], offset, shape, strides)

    def _first(self, first: Any, *_: object) -> Any:
        return first

    def _wrapper(self, *_: object) -> None:
        """Make nothing of a class of tensors without a storage; the state says what it is."""

    def _nothing(self, *_: object) -> None:
        """Stand for a layout or a device, of which nothing is needed."""

    def _member(self, *_: object) -> type[_Kept]:
        """Stand for a class inside of another one, such as the state of a process group."""
        return _Kept

    def _from_type(self, make: Callable[..., Any], kind: Any, arguments: Any, state: Any) -> Any:
        if kind is _DTensor:
            return _distributed(state)
        if kind is _ShardedTensor:
            return _shards(state)
        if kind is _Tensor:
            return make(*arguments)
        raise InertError("it rebuilds a tensor of an unknown class")


def unpickle(text: bytes) -> Any:
    """Return what a pickle says, with records for objects.

    Args:
        text: the pickle.

    Raises:
        RefusedNameError: it names something that is no part of a shard.
        InertError: it is broken.
    """
    check_opcodes(text, InertError)
    try:
        return _Unpickler(io.BytesIO(text)).load()
    except (RefusedNameError, InertError):
        raise
    except Exception as error:  # a pickle is a program, and a broken one fails in any way
        raise InertError(f"{type(error).__name__}: {error}") from error


_READ = object()  # key of what was read of a mesh


def _distributed(state: Any) -> Distributed:
    fields = _attributes(state)
    local, spec = fields["_local_tensor"], fields["_spec"].__dict__
    shape, _, dtype = spec["tensor_meta"].arguments
    mesh = spec["mesh"].__dict__
    read = mesh.get(_READ)
    if read is None:  # all tensors of a file share one
        coordinate = mesh.get("_coordinate_on_dim")
        read = _mesh_shape(mesh), None if coordinate is None else tuple(coordinate)
        mesh[_READ] = read
    placements = tuple([_placement(p) for p in spec["placements"]])
    return Distributed(dtype, tuple(shape), local, placements, *read)


def _attributes(state: Any) -> Any:
    """Return attributes by name; there are some in ``__dict__``, and some in ``__slots__``."""
    if type(state) is not tuple:
        return state
    first, second = state
    return {**first, **second} if first else second


def _placement(record: Any) -> Placement:
    kind = type(record)
    if kind is _Shard:
        return Placement("shard", _dim(record))
    if kind is _StridedShard:
        return Placement("strided", _dim(record))
    if kind is _Replicate:
        return Placement("replicate")
    return Placement("partial")


def _dim(record: Any) -> int:
    found = record.__dict__
    dim = found["dim"] if "dim" in found else found["arguments"][0]
    if type(dim) is not int:
        raise InertError("a placement without its dimension")
    return dim


def _mesh_shape(mesh: Mapping[str, Any]) -> Shape:
    """Return the sizes of a mesh, which torch keeps in its layout since 2.9."""
    for key in ("mesh", "_mesh"):
        if isinstance(mesh.get(key), Stored):
            return tuple(mesh[key].shape)
    layout = mesh["_layout"].__dict__
    axes = layout["axes"] if "axes" in layout else layout["shape"]
    if not isinstance(axes, tuple):
        return (axes,)
    return tuple([_size(axis) for axis in axes])


def _size(axis: Any) -> int:
    """Return the size of one dimension of a mesh, which may be a product of several."""
    if isinstance(axis, _Layout):
        axis = axis.__dict__["shape"]
    return math.prod(map(_size, axis)) if isinstance(axis, tuple) else axis


def _shards(state: Sequence[Any]) -> Shards:
    local, metadata = state[0], state[1].__dict__
    parts = []
    for shard in local:
        fields = shard.__dict__
        offsets = fields["metadata"].__dict__["shard_offsets"]
        parts.append((tuple(offsets), fields["tensor"]))
    dtype = metadata["tensor_properties"].__dict__["state"][0]
    return Shards(dtype, tuple(metadata["size"]), tuple(parts))
