"""Checkpoints as torchtitan saves them: its adapters' names and rows, in torch's DCP folders."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.checkpoint.state_dict_saver import save

from tests.support.models import State


def adapter_of(config: Any) -> Any:
    """Torchtitan's own adapter for a tiny model; the test is skipped where it cannot be had."""
    kinds = {
        "llama": ("llama3", "debugmodel"),
        "qwen3": ("qwen3", "debugmodel"),
        "qwen3_moe": ("qwen3", "debugmodel_moe"),
    }
    package, flavor = kinds[config.model_type]
    try:
        spec = importlib.import_module(f"torchtitan.models.{package}").model_registry(flavor)
    except Exception as error:  # whatever stops it: it is not installed, or lacks something
        pytest.skip(f"torchtitan's adapters cannot be imported here: {error}")
    model = spec.model
    model.dim, model.enable_weight_tying = config.hidden_size, config.tie_word_embeddings
    for layer in model.layers:
        layer.attention.n_heads = config.num_attention_heads
        layer.attention.n_kv_heads = config.num_key_value_heads
        layer.attention.head_dim = config.head_dim
        if layer.moe is not None:
            layer.moe.num_experts = config.num_experts
    return spec.state_dict_adapter(model, None)


def save_titan(folder: Path, state: Mapping[str, Any]) -> Path:
    """Save a state as torchtitan's checkpointer does, with what it keeps besides; returns it."""
    besides = {"optimizer": {"param_groups.lr": 1e-6}, "train_state": {"step": 1}}
    save({**state, **besides}, checkpoint_id=folder, no_dist=True)
    return folder


def titan_state(adapter: Any, state: State) -> State:
    """A Hugging Face model's state as torchtitan has it."""
    made = adapter.from_hf(dict(state))
    return {name: tensor.contiguous() for name, tensor in made.items()}


def split_experts(state: State) -> State:
    """The tensors by the names of the files, which have a matrix for each expert."""
    found = {}
    for name, tensor in state.items():
        place, _, kind = name.rpartition(".experts.")
        if kind == "gate_up_proj":
            for number, one in enumerate(tensor):
                gate, up = one.chunk(2)
                found[f"{place}.experts.{number}.gate_proj.weight"] = gate.contiguous()
                found[f"{place}.experts.{number}.up_proj.weight"] = up.contiguous()
        elif kind == "down_proj":
            for number, one in enumerate(tensor):
                found[f"{place}.experts.{number}.down_proj.weight"] = one.contiguous()
        else:
            found[name] = tensor
    return found
