"""Tensor names are sorted by layer and kind of module, whatever the architecture."""

from __future__ import annotations

import pytest

from relex_merge.trajectory.backtests.groups import Place, members, places

CASES = {
    "qwen": {
        "model.embed_tokens.weight": Place(None, "embed_tokens"),
        "model.layers.0.self_attn.q_proj.weight": Place("0", "q_proj"),
        "model.layers.0.self_attn.q_proj.bias": Place("0", "q_proj.bias"),
        "model.layers.11.mlp.down_proj.weight": Place("11", "down_proj"),
        "model.layers.11.input_layernorm.weight": Place("11", "input_layernorm"),
        "model.norm.weight": Place(None, "norm"),
        "lm_head.weight": Place(None, "lm_head"),
    },
    "gpt2": {
        "transformer.wte.weight": Place(None, "wte"),
        "transformer.h.3.attn.c_proj.weight": Place("3", "attn.c_proj"),
        "transformer.h.3.attn.c_proj.bias": Place("3", "attn.c_proj.bias"),
        "transformer.h.3.mlp.c_proj.weight": Place("3", "mlp.c_proj"),
        "transformer.h.3.mlp.c_fc.weight": Place("3", "c_fc"),
    },
    "mixture of experts": {
        "model.layers.2.mlp.experts.7.up_proj.weight": Place("2", "up_proj"),
        "model.layers.2.mlp.experts.8.up_proj.weight": Place("2", "up_proj"),
        "model.layers.2.mlp.gate.weight": Place("2", "gate"),
    },
    "two stacks": {
        "encoder.layers.1.fc1.weight": Place("encoder.layers.1", "fc1"),
        "decoder.layers.1.fc1.weight": Place("decoder.layers.1", "fc1"),
    },
    "no layers": {
        "w": Place(None, "w"),
        "weight": Place(None, "weight"),
        "head.bias": Place(None, "head.bias"),
        "encoder.scale": Place(None, "scale"),
    },
    "one kind within another": {
        "norm.weight": Place(None, "norm"),
        "model.norm.weight": Place(None, "model.norm"),
    },
    "numbers first": {"0.weight": Place("0", "0"), "2.bias": Place("2", "2.bias")},
    "bare parameters in a layer": {"model.layers.5.weight": Place("5", "layers")},
}


@pytest.mark.parametrize("case", CASES)
def test_names_find_their_place(case: str) -> None:
    assert places(CASES[case]) == CASES[case]


def test_layers_come_in_the_order_of_their_numbers() -> None:
    names = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in (10, 2, 0)]
    layers, kinds = members(names)
    assert list(layers) == ["0", "2", "10"]
    assert kinds == {"up_proj": names}
