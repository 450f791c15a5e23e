"""Names of tensors in shards, as the Hugging Face model has them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeAlias, TypeVar

from relex_merge.errors import RelexError
from relex_merge.formatting import some

V = TypeVar("V")
Renaming: TypeAlias = Callable[[str], str]

PREFIX = "base_model.model."  # PEFT's names: the wrapped model is an attribute of two wrappers

# What FSDP, torch.compile and activation checkpointing put into the path of a module.
_WRAPPERS = re.compile(r"(_fsdp_wrapped_module|_orig_mod|_checkpoint_wrapped_module)\.")
_OUTER = "module."  # of DistributedDataParallel
_LORA = re.compile(r"\.(lora_A|lora_B|lora_magnitude_vector)\.[^.]+(\.weight)?$")
_LORA_EMBEDDING = re.compile(r"\.(lora_embedding_[AB])\.[^.]+$")
_SAVED = re.compile(r"\.modules_to_save\.[^.]+\.")
_TITAN = re.compile(r"(tok_embeddings|layers\.\d+\.(attention\.w[qkvo]|feed_forward\.w\d))\.weight")
# In some models' state, and in none of their files.
_MAY_BE_ADDED = re.compile(r"(.*\.)?(rotary_emb\.inv_freq|lm_head\.weight|embed_out\.weight)")
_SHOWN = 4  # names of a list in messages


def of_model(tensors: Mapping[str, V], label: str) -> dict[str, V]:
    """Return a model's tensors by their names without those of wrappers.

    Args:
        tensors: by their names in the shards.
        label: names the checkpoint in messages.

    Raises:
        RelexError: two tensors get one name.
    """
    return _renamed(tensors, _unwrapped, label)


def of_adapter(tensors: Mapping[str, V], label: str) -> dict[str, V]:
    """Return an adapter's tensors by the names that PEFT stores them by; the base's are left out.

    Args:
        tensors: by their names in the shards.
        label: names the checkpoint in messages.

    Raises:
        RelexError: two tensors get one name.
    """
    own = {n: t for n, t in tensors.items() if ".lora_" in n or ".modules_to_save." in n}
    return _renamed(own, _of_peft, label)


def check_fits(names: Collection[str], base: Collection[str], label: str, base_label: str) -> None:
    """Check that shards have the tensors of the base.

    Args:
        names: of the shards, without wrappers.
        base: names of the base's tensors.
        label: names the shards in messages.
        base_label: names the base.

    Raises:
        RelexError: they do not; the message shows what is on one side only.
    """
    there, wanted = set(names), set(base)
    missing = sorted(n for n in wanted - there if not _MAY_BE_ADDED.fullmatch(n))
    if not missing:
        return
    more = sorted(there - wanted)
    if any(_TITAN.fullmatch(name) for name in there):
        raise RelexError(
            f"{label} has torchtitan's own names ({some(more, _SHOWN)}), and its rows are in "
            "another order than in a Hugging Face model; save with --checkpoint.last_save_in_hf, "
            "or convert it with torchtitan's scripts/checkpoint_conversion/convert_to_hf.py"
        )
    raise RelexError(
        f"{label} does not have the names of {base_label}: only there {some(missing, _SHOWN)}; "
        f"only here {some(more, _SHOWN)}; is it the model that this run started from?"
    )


def _renamed(tensors: Mapping[str, V], rename: Renaming, label: str) -> dict[str, V]:
    found: dict[str, V] = {}
    for name, tensor in tensors.items():
        short = rename(name)
        if short in found:
            raise RelexError(f"{label} holds two tensors {short}, one of them as {name}")
        found[short] = tensor
    return found


def _unwrapped(name: str) -> str:
    plain = _WRAPPERS.sub("", name)
    while plain.startswith((_OUTER, PREFIX)):
        plain = plain.removeprefix(_OUTER).removeprefix(PREFIX)
    return plain


def _of_peft(name: str) -> str:
    """Return a name without that of the adapter, which PEFT leaves out when it saves."""
    plain = PREFIX + _unwrapped(name)
    plain = _SAVED.sub(".", plain)
    plain = _LORA_EMBEDDING.sub(r".\1", plain)
    return _LORA.sub(lambda found: f".{found[1]}{found[2] or ''}", plain)


def target_modules(names: Iterable[str]) -> list[str]:
    """Return the last parts of the names of the modules that an adapter's factors belong to."""
    factors = (name.partition(".lora_")[0] for name in names if ".lora_" in name)
    return sorted({module.rpartition(".")[2] for module in factors})
