"""Promises about checkpoints under torchtitan's own names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from relex_merge.checkpoints.sharded import find_sharded
from relex_merge.errors import RelexError, pip_line
from relex_merge.weights.sharded import open_sharded
from relex_merge.weights.source import Read, Source, read_numbers
from relex_merge.weights.titan import as_hugging_face
from tests.support.models import make_config, make_state
from tests.support.titan_runs import adapter_of, save_titan, split_experts, titan_state

QUERIES = "model.layers.1.self_attn.q_proj.weight"
# A few tensors as torchtitan's llama has them: what they hold does not matter where it is missing.
FOREIGN = {
    "tok_embeddings.weight": torch.zeros(64, 16),
    "layers.0.attention.qkv_linear.wq.weight": torch.zeros(16, 16),
}


def _opened(folder: Path) -> Source:
    found = find_sharded(folder)
    assert found is not None
    return open_sharded(found, "the checkpoint")


def _settings(kind: str) -> Any:
    return make_config(
        kind, head_dim=8, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False
    )


@pytest.mark.parametrize("kind", ["llama", "qwen3", "qwen3_moe"])
def test_names_and_rows_are_those_of_the_hugging_face_model(kind: str, tmp_path: Path) -> None:
    config = _settings(kind)
    adapter = adapter_of(config)
    state = split_experts(make_state(config))
    stored = titan_state(adapter, state)
    if kind == "qwen3_moe":
        stored["layers.0.moe.expert_bias_E"] = torch.zeros(4)
    source = as_hugging_face(_opened(save_titan(tmp_path / "c", stored)), config)
    assert set(source.tensors) == set(state) == set(adapter.to_hf(stored))
    for name, tensor in state.items():
        info = source.tensors[name]
        assert (info.dtype, info.shape) == (tensor.dtype, tuple(tensor.shape)), name
        assert torch.equal(read_numbers(source, name, 0, info.numel), tensor.reshape(-1)), name


def test_any_range_of_bytes_of_moved_rows_can_be_read(tmp_path: Path) -> None:
    config = _settings("llama")
    adapter, state = adapter_of(config), make_state(config)
    stored = titan_state(adapter, state)
    source = as_hugging_face(_opened(save_titan(tmp_path / "c", stored)), config)
    moved = stored["layers.1.attention.qkv_linear.wq.weight"]
    assert not torch.equal(moved, state[QUERIES])
    whole = state[QUERIES].numpy().tobytes()  # 32 rows of 64 bytes
    ranges = [(0, 1), (3, 64), (60, 70), (64, 128), (100, 1025), (2047, 2048), (5, 2041), (7, 7)]
    buffers = [bytearray(stop - start) for start, stop in ranges]
    source.read(
        [Read(QUERIES, a, memoryview(b)) for (a, _), b in zip(ranges, buffers, strict=True)]
    )
    assert buffers == [whole[start:stop] for start, stop in ranges]


def test_what_the_adapter_does_not_know_is_named(tmp_path: Path) -> None:
    """Earlier releases had other names."""
    config = _settings("qwen3")
    stored = titan_state(adapter_of(config), make_state(config))
    old = {name.replace(".qkv_linear", ""): tensor for name, tensor in stored.items()}
    source = _opened(save_titan(tmp_path / "c", old))
    with pytest.raises(RelexError, match=r"does not say what layers\.0\.attention\.wq\.weight"):
        as_hugging_face(source, config)


def test_numbers_that_are_changed_and_not_moved_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _settings("llama")
    config.num_experts = -1  # which nothing reads: no answer for the adapter as it is stands by
    adapter = adapter_of(config)
    stored = titan_state(adapter, make_state(config))
    source = _opened(save_titan(tmp_path / "c", stored))
    convert = type(adapter).to_hf

    def halved(self: Any, state: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = convert(self, state)
        return {n: t / 2 if n.endswith("down_proj.weight") else t for n, t in made.items()}

    monkeypatch.setattr(type(adapter), "to_hf", halved)
    with pytest.raises(RelexError, match=r"other numbers of layers\.0\.feed_forward\.w2\.weight"):
        as_hugging_face(source, config)


@pytest.mark.parametrize(
    ("kind", "told"),
    [("llama", pip_line("titan")), ("qwen2", "for models of the types llama, qwen3")],
)
def test_without_torchtitan_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, told: str
) -> None:
    monkeypatch.setitem(sys.modules, "torchtitan", None)
    source = _opened(save_titan(tmp_path / "c", FOREIGN))
    with pytest.raises(RelexError) as caught:
        as_hugging_face(source, make_config(kind, vocab_size=65))
    assert told in str(caught.value)
    assert "layers.0.attention.qkv_linear.wq.weight" in str(caught.value)
    assert "convert_to_hf.py" in str(caught.value)
