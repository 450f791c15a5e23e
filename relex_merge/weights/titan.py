"""Checkpoints under torchtitan's own names, read as the Hugging Face model that they are.

torchtitan (https://github.com/pytorch/torchtitan) saves by ``torch.distributed.checkpoint`` under
the names of its own models. Its adapters (``to_hf``) say what each tensor is in a Hugging Face
model: the same tensor by another name, its rows in another order (llama's queries and keys), or
several tensors one behind another (stacked experts). The adapter is asked with stand-ins that hold
no weights: what comes back as the same object was renamed; of what comes back changed, tensors of
row and column numbers tell which rows went where. The weights are then read in that order where
they lie.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from relex_merge.errors import RelexError, pip_line
from relex_merge.formatting import some
from relex_merge.weights.source import Read, Source, TensorInfo

Settings: TypeAlias = tuple[tuple[str, Any], ...]

_OWN = re.compile(r"layers\.\d+\.(attention\.(qkv_linear\.)?w[qkvo]|feed_forward\.w\d)\.weight")
_HEAD = "lm_head.weight"
# For the balance of experts in training; torchtitan's conversion leaves it out where Hugging Face's
# model has none.
_BALANCE = re.compile(r"layers\.\d+\.moe\.expert_bias_E")
_SHOWN = 4  # names of a list in messages
_LONGEST = 300  # characters of what torchtitan has to say
_CONVERT = "convert it with torchtitan's scripts/checkpoint_conversion/convert_to_hf.py"


class _Family(NamedTuple):
    """Where torchtitan has a kind of model: its package, and a flavor with all of its parts."""

    package: str
    flavor: str


# transformers' model_type → torchtitan's. The others' adapters change more than names and rows, or
# their models are more than a language model.
_FAMILIES = {
    "llama": _Family("llama3", "debugmodel"),
    "qwen3": _Family("qwen3", "debugmodel"),
    "qwen3_moe": _Family("qwen3", "debugmodel_moe"),
}
# Entries of transformers' configurations that _adapter needs.
_READ = (
    *("model_type", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim"),
    *("tie_word_embeddings", "num_experts"),
)


def has_own_names(names: Collection[str]) -> bool:
    """Whether tensors have the names of torchtitan's models."""
    return any(map(_OWN.fullmatch, names))


def as_hugging_face(source: Source, config: Any) -> Source:
    """Return a source with the names and the order of rows of a Hugging Face model.

    Args:
        source: the checkpoint; one without torchtitan's own names is returned as it is.
        config: the model's transformers configuration.

    Raises:
        RelexError: torchtitan cannot be imported, or its adapter does not map every tensor in a
            way that is known here.
    """
    if not has_own_names(source.tensors):
        return source
    shown = some(sorted(filter(_OWN.fullmatch, source.tensors)), _SHOWN)
    settings = tuple((key, getattr(config, key, None)) for key in _READ)
    try:
        mapping = _mapping(settings, tuple(source.tensors.items()))
    except _UnknownError as error:
        raise RelexError(
            f"{source.label} has torchtitan's own names ({shown}), and {error}; or {_CONVERT}"
        ) from error
    return TitanSource(source, mapping)


class _UnknownError(Exception):
    """A tensor, or a model, whose Hugging Face form is not known; the message goes on a sentence.

    It says why, and what may help.
    """


@dataclass(frozen=True)
class _Rows:
    """Rows (runs of a tensor's last dimension) of a stored tensor, in runs of neighbours.

    Attributes:
        begins: first row of each run where the rows are wanted, ascending from 0, and their
            number: (runs + 1,), int64.
        firsts: row in the stored tensor that each run begins with: (runs,), int64.
        width: numbers in a row.
    """

    begins: npt.NDArray[np.int64]
    firsts: npt.NDArray[np.int64]
    width: int

    @staticmethod
    def of(rows: npt.NDArray[np.int64], width: int) -> _Rows:
        """Make them of the numbers of the rows, (rows,)."""
        cuts = np.flatnonzero(np.diff(rows) != 1) + 1
        begins = np.concatenate([[0], cuts, [len(rows)]]).astype(np.int64)
        return _Rows(begins, rows[begins[:-1]], width)

    def reads(self, asked: Read, stored: str, itemsize: int) -> Iterator[Read]:
        """Yield reads of the stored tensor that fill a buffer with bytes of the wanted one."""
        width = self.width * itemsize
        at, into = asked.start, asked.into
        number = int(np.searchsorted(self.begins, at // width, side="right")) - 1
        while len(into):
            inside = at - int(self.begins[number]) * width
            part = into[: int(self.begins[number + 1]) * width - at]
            yield Read(stored, int(self.firsts[number]) * width + inside, part)
            at, into, number = at + len(part), into[len(part) :], number + 1


class _Taken(NamedTuple):
    """What a tensor of the Hugging Face model is made of.

    Attributes:
        stored: torchtitan's tensor.
        info: dtype and shape of the Hugging Face model's.
        rows: of the stored tensor; None takes it as it is.
    """

    stored: str
    info: TensorInfo
    rows: _Rows | None = None


class TitanSource(Source):
    """A checkpoint under torchtitan's names, seen as the Hugging Face model.

    Args:
        source: the checkpoint.
        mapping: Hugging Face's name → what it is made of.
    """

    def __init__(self, source: Source, mapping: Mapping[str, _Taken]) -> None:
        self.label = source.label
        self.parallel_reads = source.parallel_reads
        self.computed = source.computed
        self.remote = source.remote
        self.tensors = {name: taken.info for name, taken in mapping.items()}
        self._source = source
        self._mapping = mapping

    def read(self, reads: Sequence[Read]) -> None:
        """Fill every buffer, from the rows of torchtitan's tensors that belong there."""
        found: list[Read] = []
        for asked in reads:
            taken = self._mapping[asked.name]
            if taken.rows is None:
                found.append(Read(taken.stored, asked.start, asked.into))
            else:
                found.extend(taken.rows.reads(asked, taken.stored, taken.info.dtype.itemsize))
        self._source.read(found)

    def fingerprint(self) -> list[Any]:
        """Return that of the checkpoint."""
        return self._source.fingerprint()

    def check_unchanged(self) -> None:
        """Raise RelexError when a file of the checkpoint has changed since it was opened."""
        self._source.check_unchanged()

    def stop(self) -> None:
        """Let reads that wait for something fail soon."""
        self._source.stop()


@lru_cache(maxsize=2)  # the checkpoints of a series are alike
def _mapping(
    settings: Settings, stored: tuple[tuple[str, TensorInfo], ...]
) -> Mapping[str, _Taken]:
    """Return Hugging Face's name → what it is made of.

    Args:
        settings: what of the configuration counts.
        stored: torchtitan's tensors.

    Raises:
        _UnknownError: it cannot be found out for every tensor.
    """
    config = dict(settings)
    adapter, version = _adapter(config)
    found: dict[str, _Taken] = {}
    unknown, changed = [], []
    alike: dict[tuple[str, TensorInfo], list[_Rows] | None] = {}  # layers are
    for name, info in stored:
        stand_in = torch.empty(info.shape, dtype=info.dtype, device="meta")
        made = _asked(adapter, name, stand_in)
        if not made:
            tied = name == _HEAD and config["tie_word_embeddings"]
            if not tied and not _BALANCE.fullmatch(name):
                unknown.append(name)
            continue
        if all(value is stand_in for value in made.values()):
            found.update((key, _Taken(name, info)) for key in made)
            continue
        kind = re.sub(r"\d+", "N", name), info
        if kind not in alike:
            alike[kind] = _rows(adapter, name, info)
        rows = alike[kind]
        cast = any(value.dtype != info.dtype for value in made.values())
        if cast or rows is None or len(rows) != len(made):
            changed.append(name)
            continue
        for (key, value), own in zip(made.items(), rows, strict=True):
            found[key] = _Taken(name, TensorInfo(info.dtype, tuple(value.shape)), own)
    if unknown:
        raise _UnknownError(
            f"torchtitan {version}, which is installed, does not say what "
            f"{some(unknown, _SHOWN)} is in a Hugging Face model of type {config['model_type']}; "
            "install the version that saved it"
        )
    if changed:
        raise _UnknownError(
            f"torchtitan {version} makes other numbers of {some(changed, _SHOWN)} for Hugging "
            "Face, not rows in another order; save with --checkpoint.last_save_in_hf"
        )
    return found


def _asked(adapter: Any, name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what the adapter makes of a tensor, nothing where it does not know it."""
    try:
        return dict(adapter.to_hf({name: tensor}))
    except Exception:  # torchtitan's adapters fail in many ways on what they do not know
        return {}


def _rows(adapter: Any, name: str, info: TensorInfo) -> list[_Rows] | None:
    """Return which rows of a tensor the adapter puts into each that it makes of it.

    Where the adapter copies, that takes memory for two tensors of its size in int32.

    Args:
        adapter: torchtitan's.
        name: of the tensor.
        info: its dtype and shape. A tensor with one dimension has rows of one number.

    Returns:
        The rows of each in the adapter's order; None where it does more than move rows.
    """
    shape = info.shape if len(info.shape) > 1 else (*info.shape, 1)
    count, width = int(np.prod(shape[:-1])), shape[-1]
    # From 1, so that a 0 is no row and any arithmetic shows.
    numbers = torch.arange(1, count + 1, dtype=torch.int32).view(*shape[:-1], 1)
    columns = torch.arange(1, width + 1, dtype=torch.int32)
    by_row = _asked(adapter, name, numbers.expand(shape).view(info.shape)).values()
    by_column = _asked(adapter, name, columns.expand(shape).view(info.shape)).values()
    if len(by_row) != len(by_column):
        return None
    found = []
    for one, other in zip(by_row, by_column, strict=True):
        if (one.dim() > 1 and one.shape[-1] != width) or one.numel() % width:
            return None
        own, across = one.reshape(-1, width), other.reshape(-1, width)
        first = own[:, 0].numpy().astype(np.int64) - 1
        whole = bool((own == own[:, :1]).all()) and bool((across == columns).all())
        if not whole or not ((first >= 0) & (first < count)).all():
            return None
        found.append(_Rows.of(first, width))
    return found


def _adapter(config: Mapping[str, Any]) -> tuple[Any, str]:
    """Return torchtitan's adapter for a model, and the version of torchtitan.

    torchtitan's own small configuration of that kind of model is taken, and what the adapter reads
    of it is set: sizes of heads, experts, whether the head is tied.

    Args:
        config: entries of the transformers configuration.

    Raises:
        _UnknownError: torchtitan cannot be imported, or has no adapter that is known here.
    """
    family = _FAMILIES.get(config["model_type"])
    if family is None:
        raise _UnknownError(
            f"they are mapped for models of the types {', '.join(_FAMILIES)}, not for "
            f"{config['model_type']}; save with --checkpoint.last_save_in_hf"
        )
    try:
        import torchtitan

        package: Any = importlib.import_module(f"torchtitan.models.{family.package}")
        spec = package.model_registry(family.flavor)
        model = spec.model
        model.dim = config["hidden_size"]
        model.enable_weight_tying = bool(config["tie_word_embeddings"])
        for layer in model.layers:
            layer.attention.n_heads = config["num_attention_heads"]
            layer.attention.n_kv_heads = config["num_key_value_heads"]
            layer.attention.head_dim = config["head_dim"]
            if layer.moe is not None:
                layer.moe.num_experts = config["num_experts"]
        return spec.state_dict_adapter(model, None), torchtitan.__version__
    except Exception as error:  # whatever stops it: it is not there, or of another version
        text = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST]
        raise _UnknownError(
            f"to map them needs torchtitan 0.3 or later, which cannot be used here ({text}): "
            f"{pip_line('titan')}"
        ) from error
