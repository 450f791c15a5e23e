"""Promises about config.json and adapter_config.json: what they say is checked, never assumed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from relex_merge.checkpoints.configs import Identity, MisfitError, dtype, identity, read_config
from relex_merge.checkpoints.find import find
from relex_merge.checkpoints.find_local import find_local
from relex_merge.checkpoints.hub_details import look_into
from relex_merge.errors import RelexError
from tests.fake_hub import Hub
from tests.support.json_mutations import mutations

CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 16,
    "text_config": {"num_hidden_layers": 2},
    "dtype": "bfloat16",
    "_name_or_path": "org/base",
}
ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 8}


def checkpoint(folder: Path, config: bytes, kind: str = "model") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    name = "config.json" if kind == "model" else "adapter_config.json"
    (folder / name).write_bytes(config)
    weights = "model.safetensors" if kind == "model" else "adapter_model.safetensors"
    save_file({"a": np.zeros(2, np.float32)}, folder / weights)
    return folder


def test_what_a_configuration_says(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    assert read_config(path) == {}
    path.write_text(json.dumps(CONFIG))
    config = read_config(path)
    sizes = (("hidden_size", 16), ("num_hidden_layers", 2))
    assert identity(config, "model") == Identity("Qwen2ForCausalLM", sizes)
    assert dtype(config) == "BF16"
    assert dtype({"torch_dtype": "torch.float32"}) == "F32"
    assert identity({"model_type": "qwen2", "hidden_size": None}, "model") == Identity("qwen2", ())
    assert identity({}, "model") is None
    assert identity(ADAPTER, "adapter") == Identity("adapter of base", ())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architectures": "Qwen2ForCausalLM"}, "architectures is 'Qwen2ForCausalLM', not a list"),
        ({"architectures": [5]}, "architectures is '[5]', not a list of names"),
        ({"architectures": {"a": 1}}, "not a list of names"),
        ({"model_type": 5}, "model_type is '5', not a name"),
        ({"hidden_size": "16"}, "hidden_size is '16', not a number of 1 or more"),
        ({"hidden_size": True}, "hidden_size is 'True', not a number"),
        ({"hidden_size": -1}, "hidden_size is '-1', not a number"),
        ({"text_config": [1]}, "text_config is '[1]', not an object"),
        ({"text_config": {"n_layer": []}}, "text_config.n_layer is '[]', not a number"),
        ({"dtype": {}}, "dtype is '{}', not a name"),
        ({"base_model_name_or_path": 5}, "base_model_name_or_path is '5', not a name"),
    ],
)
def test_wrong_types_are_named_with_their_file(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**CONFIG, **change}))
    with pytest.raises(RelexError, match=re.escape(said)) as caught:
        read_config(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text", [b"{", b"[]", b"\xff", b"5", 10**5 * b"[", b'{"a": ' + 5000 * b"9"]
)
def test_what_is_no_json_object_is_named(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text)
    with pytest.raises(RelexError, match=r"config\.json is no whole JSON file"):
        read_config(path)


@pytest.mark.parametrize("kind", ["model", "adapter"])
def test_no_configuration_is_an_internal_error(kind: str, tmp_path: Path) -> None:
    config = CONFIG if kind == "model" else ADAPTER
    checkpoint(tmp_path / "step_1", json.dumps(config).encode(), kind)
    refused = 0
    for text in mutations(config, 300):
        checkpoint(tmp_path / "step_2", text, kind)
        try:
            found = find_local(tmp_path)
        except MisfitError:
            continue
        refused += found.steps == [1]
    assert refused > 100


def test_a_broken_configuration_on_this_disk_is_left_out_and_on_the_hub_an_error(
    hub: Hub, tmp_path: Path
) -> None:
    for step in (1, 2, 3):
        folder = checkpoint(tmp_path / f"run/step_{step}", json.dumps(CONFIG).encode())
        if step == 3:
            checkpoint(folder, b'{"architectures": [')
        hub.commit_folder("org/run", folder, branch=f"step_{step}")
    found = find_local(tmp_path / "run")
    assert found.steps == [1, 2]
    assert "step_3 was left out: config.json is no whole JSON file" in found.notes[0]
    with pytest.raises(RelexError, match=r"config\.json of org/run@step_3 is no whole JSON file"):
        look_into(find("org/run"), [1, 2, 3])


def test_a_model_card_that_is_not_yaml_names_no_base(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint(tmp_path / f"step_{step}", json.dumps(ADAPTER).encode(), "adapter")
    (tmp_path / "README.md").write_text("---\nbase_model: [org/other\n---\n# run\n")
    base = find_local(tmp_path).base
    assert base is not None
    assert base.reference == "org/base"
