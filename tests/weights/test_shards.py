"""Models in several files: the index says where a tensor is, and it is read strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from relex_merge.errors import RelexError
from relex_merge.hub.download import pin
from relex_merge.hub.ranges import Connections
from relex_merge.weights.folder import mark_files, open_folder
from relex_merge.weights.remote import HubSource
from relex_merge.weights.source import read_numbers
from tests.fake_hub import Hub

ENDS = {"model": ".safetensors", "pytorch_model": ".bin"}


def save(path: Path, tensors: dict[str, float]) -> None:
    state = {name: torch.full((3,), value) for name, value in tensors.items()}
    if path.suffix == ".bin":
        torch.save(state, path)
    else:
        save_file(state, path)


def write_index(folder: Path, stem: str, content: Any) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / f"{stem}{ENDS[stem]}.index.json").write_text(text)


@pytest.fixture(params=list(ENDS))
def stem(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Two shards below ``tmp_path`` that both hold w and another tensor each, and their index."""
    stem = str(request.param)
    save(tmp_path / f"{stem}-1{ENDS[stem]}", {"w": 1, "a": 10})
    save(tmp_path / f"{stem}-2{ENDS[stem]}", {"w": 2, "b": 20})
    return stem


def places(stem: str, **numbers: int) -> dict[str, Any]:
    files = {tensor: f"{stem}-{number}{ENDS[stem]}" for tensor, number in numbers.items()}
    return {"metadata": {"total_size": 36}, "weight_map": files}


@pytest.mark.parametrize("chosen", [1, 2])
def test_a_tensor_in_two_shards_comes_from_where_the_index_says(
    chosen: int, stem: str, tmp_path: Path
) -> None:
    write_index(tmp_path, stem, places(stem, a=1, b=2, w=chosen))
    source = open_folder(tmp_path, "the model")
    values = {name: read_numbers(source, name, 0, 1).item() for name in sorted(source.tensors)}
    assert values == {"a": 10, "b": 20, "w": chosen}


def test_a_tensor_that_the_index_leaves_out_is_not_the_models(stem: str, tmp_path: Path) -> None:
    write_index(tmp_path, stem, places(stem, a=1, w=2))
    assert sorted(open_folder(tmp_path, "the model").tensors) == ["a", "w"]


def test_a_tensor_that_its_shard_lacks(stem: str, tmp_path: Path) -> None:
    write_index(tmp_path, stem, places(stem, a=2, b=2, w=1))
    with pytest.raises(RelexError, match=rf"the model: .*{stem}-2.* 'a' "):
        open_folder(tmp_path, "the model")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"weight_map": null}',
        '{"weight_map": {}}',
        '{"weight_map": []}',
        '{"weight_map": {"w": 1}}',
        '{"weight_map": {"w": null}}',
        '{"weight_map": {"w": ["model-1.safetensors"]}}',
        '{"weight_map": {"w": ""}}',
        '{"weight_map": {"w": "config.json"}}',
        '{"weight_map": {"w": "gone.safetensors"}}',
        '{"weight_map": {"w": "../model-1.safetensors"}}',
        '{"weight_map": {"w": "..\\\\model-1.safetensors"}}',
        '{"weight_map": {"w": "model-1.safetensors\\u0000"}}',
        '{"weight_map": {"w": "model-1.safetensors", "w": "model-2.safetensors"}}',
        '{"weight_map": {"w": ' + "[" * 100_000,
        "\ud800",
    ],
)
def test_an_index_that_is_none(content: str, tmp_path: Path) -> None:
    save(tmp_path / "model-1.safetensors", {"w": 1})
    save(tmp_path / "model-2.safetensors", {"w": 2})
    index = tmp_path / "model.safetensors.index.json"
    index.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(RelexError, match="the model: ") as caught:
        open_folder(tmp_path, "the model")
    assert len(str(caught.value)) < 500
    with pytest.raises(RelexError, match="the model: "):
        mark_files(tmp_path, "the model")


def test_safetensors_come_before_pickles_and_an_index_before_a_single_file(tmp_path: Path) -> None:
    save(tmp_path / "pytorch_model.bin", {"w": 3})
    assert read_numbers(open_folder(tmp_path, "m"), "w", 0, 1).item() == 3
    save(tmp_path / "model.safetensors", {"w": 1})
    assert read_numbers(open_folder(tmp_path, "m"), "w", 0, 1).item() == 1
    save(tmp_path / "model-2.safetensors", {"w": 2})
    write_index(tmp_path, "model", places("model", w=2))
    assert read_numbers(open_folder(tmp_path, "m"), "w", 0, 1).item() == 2
    assert [mark.path.name for mark in mark_files(tmp_path, "m")] == ["model-2.safetensors"]


def test_a_folder_without_weights_is_named_with_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RelexError, match=r"^m holds no weights \(model\.safetensors.*notes\.txt"):
        open_folder(tmp_path, "m")


def test_on_the_hub_too(hub: Hub, tmp_path: Path) -> None:
    save(tmp_path / "model-1.safetensors", {"w": 1, "a": 10})
    save(tmp_path / "model-2.safetensors", {"w": 2, "b": 20})
    write_index(tmp_path, "model", places("model", a=1, b=2, w=1))
    hub.commit_folder("org/run", tmp_path)
    pinned = pin("org/run", None).at()
    source = HubSource(pinned, tmp_path, "x", Connections())
    assert read_numbers(source, "w", 0, 1).item() == 1
    write_index(tmp_path, "model", places("model", d=2, w=1))
    with pytest.raises(RelexError, match=r"x: .*model-2.* lacks the tensor 'd'"):
        HubSource(pinned, tmp_path, "x", Connections())
