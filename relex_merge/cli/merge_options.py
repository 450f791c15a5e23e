"""mergekit's own options, as ``mergekit-yaml`` takes them, without its import, which takes seconds.

Names, types and defaults are those of ``mergekit.options.MergeOptions``; a test compares them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from relex_merge.cli.meant import Device

if TYPE_CHECKING:
    from mergekit.options import MergeOptions

F = TypeVar("F", bound=Callable[..., Any])

TITLE = "mergekit's own options"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}


class ShardSize(click.ParamType[int]):
    """A number of bytes as mergekit writes it: 500M, 5B; K, M and B are powers of 1000."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+)([KMB]?)", str(value).strip().upper())
        if found is None:
            self.fail(f"{value!r} is not a size; write for example 500M or 5B", param, ctx)
        return int(found[1]) * _UNITS[found[2]]


@dataclass(frozen=True)
class _Option:
    """One option: its type, its default, one line of help; declared by its name unless told."""

    type: Any
    default: Any
    help: str
    declared: tuple[str, ...] = ()


def _flag(text: str, default: bool = False) -> _Option:
    return _Option(bool, default, f"{text}  [default: on]" if default else text)


OPTIONS: dict[str, _Option] = {
    "allow_crimes": _flag("Let architectures be mixed."),
    "unsafe_truncate_embeddings": _flag("Cut embeddings to the smallest vocabulary."),
    "transformers_cache": _Option(str, None, "Where models from the Hub are kept."),
    "lora_merge_cache": _Option(str, None, "Where adapters merged into models are kept."),
    "lora_merge_dtype": _Option(str, None, "dtype in which adapters are merged into models."),
    "cuda": _flag("Compute on the GPU."),
    "device": _Option(Device(), None, "Compute there: cpu, cuda, cuda:1, mps, xpu, auto."),
    "low_cpu_memory": _flag("Keep intermediate values on the GPU."),
    "out_shard_size": _Option(ShardSize(), 5 * 10**9, "Bytes of a shard  [default: 5B]"),
    "copy_tokenizer": _flag("Copy the tokenizer.", default=True),
    "clone_tensors": _flag("Copy each tensor before it is saved."),
    "trust_remote_code": _flag("Run the code that a repo on the Hub brings."),
    "random_seed": _Option(
        click.IntRange(0, 2**32 - 1), None, "Seed of merge methods that draw random numbers."
    ),
    "lazy_unpickle": _flag("Read .bin files lazily (mergekit's path)."),
    "write_model_card": _flag("Write README.md.", default=True),
    "safe_serialization": _flag("Write safetensors.", default=True),
    "verbosity": _Option(
        int, 0, "Show the traceback of an error; -vv more of what is done.", ("-v", "verbosity")
    ),
    "quiet": _flag("No progress bars."),
    "read_to_gpu": _flag("Read weights straight to the GPU (mergekit's path)."),
    "multi_gpu": _flag("Use all GPUs (mergekit's path)."),
    "num_threads": _Option(click.IntRange(1), None, "Threads.", ("--num-threads", "-j")),
    "gpu_rich": _Option(
        bool, False, "--cuda --low-cpu-memory --read-to-gpu --multi-gpu", ("--gpu-rich",)
    ),
    "async_write": _flag("Write shards in the background (mergekit's path)."),
    "write_threads": _Option(int, 1, "Threads for --async-write."),
}
READING = (
    "transformers_cache",
    "trust_remote_code",
    "cuda",
    "device",
    "num_threads",
    "quiet",
    "verbosity",
)
"""Those that mean something to a command that writes no model."""


class AskedOptions:
    """mergekit's options as they were given on the command line.

    Args:
        values: name of a field of ``MergeOptions`` → value.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    @property
    def quiet(self) -> bool:
        """Whether progress bars are unwanted."""
        return bool(self._values["quiet"])

    def made(self) -> MergeOptions:
        """Import mergekit, set threads, seed and verbosity for this process; return its options."""
        from mergekit.options import MergeOptions

        options = MergeOptions(**self._values)
        options.apply_global_options()
        return options


def merging_options(command: F) -> F:
    """Add mergekit's own options; the command gets them as ``asked``, an :class:`AskedOptions`."""

    @wraps(command)
    def gathered(*args: Any, **values: Any) -> Any:
        asked = AskedOptions({name: values.pop(name) for name in OPTIONS})
        return command(*args, asked=asked, **values)

    wrapped: Any = gathered
    for name, option in reversed(OPTIONS.items()):
        spelt = name.replace("_", "-")
        pair = f"--{spelt}/--no-{spelt}" if option.type is bool else f"--{spelt}"
        how: dict[str, Any] = {"count": True} if name == "verbosity" else {"type": option.type}
        if option.declared and option.type is bool:
            how = {"is_flag": True}
        wrapped = click.option(
            *(option.declared or (pair,)),
            default=option.default,
            help=option.help,
            show_default=option.type is int and name != "verbosity",
            **how,
        )(wrapped)
    return wrapped  # type: ignore[no-any-return]  # click.option returns what it is given
