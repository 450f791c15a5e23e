"""A tensor that lies in two shards is read from where the index puts it, on disk and Hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from relex_merge.errors import RelexError
from relex_merge.hub.download import pin
from relex_merge.hub.ranges import Connections
from relex_merge.weights.remote import HubSource
from relex_merge.weights.source import Source, open_folder, read_numbers
from tests.fake_hub import Hub

PLACES = {"a": 1, "b": 2, "c": 2}


def write(folder: Path, kind: str) -> None:
    """Two shards that both hold a (1, 2 in the first, 3, 4 in the second), b and c beside it."""
    folder.mkdir(exist_ok=True)
    single = "model.safetensors" if kind == "safetensors" else "pytorch_model.bin"
    stem, _, suffix = single.partition(".")
    names = {number: f"{stem}-0000{number}-of-00002.{suffix}" for number in (1, 2)}
    held = {1: {"a": torch.tensor([1.0, 2.0])}, 2: {"a": torch.tensor([3.0, 4.0])}}
    held[2] |= {"b": torch.ones(3), "c": torch.ones(1)}
    for number, state in held.items():
        if kind == "safetensors":
            save_file(state, folder / names[number])
        else:
            torch.save(state, folder / names[number])
    index = {"weight_map": {name: names[number] for name, number in PLACES.items()}}
    (folder / f"{single}.index.json").write_text(json.dumps(index))


def check(source: Source) -> None:
    assert set(source.tensors) == {"a", "b", "c"}
    assert read_numbers(source, "a", 0, 2).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_on_the_disk(kind: str, tmp_path: Path) -> None:
    write(tmp_path, kind)
    check(open_folder(tmp_path, "x"))
    index = next(tmp_path.glob("*.index.json"))
    index.write_text(index.read_text().replace('"b": ', '"d": '))
    with pytest.raises(RelexError, match=r"x: .*-00002-of-00002.* lacks the tensor d"):
        open_folder(tmp_path, "x")


def test_on_the_hub(hub: Hub, tmp_path: Path) -> None:
    write(tmp_path, "safetensors")
    hub.commit_folder("org/run", tmp_path)
    pinned = pin("org/run", None).at()
    connections = Connections()
    check(HubSource(pinned, tmp_path, "x", connections))
    index = next(tmp_path.glob("*.index.json"))
    index.write_text(index.read_text().replace('"b": ', '"d": '))
    with pytest.raises(RelexError, match=r"x: .*-00002-of-00002.* lacks the tensor d"):
        HubSource(pinned, tmp_path, "x", connections)
