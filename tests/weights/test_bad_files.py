"""Corrupt, missing and malicious files: named, never followed, never executed."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.models import Series, make_series, read_weights, write_recipe
from tests.support.refusals import Refuse, sliced
from tests.support.terminal import Command

LAYER = "model.layers.1.mlp.up_proj.weight"
pytestmark = pytest.mark.usefixtures("no_figure")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _cut_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def _garbage(path: Path) -> None:
    path.write_bytes(b"\xff" * 5000)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _edit_header(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def _offsets_beyond_the_end(path: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        size = header[LAYER]["data_offsets"][1] - header[LAYER]["data_offsets"][0]
        header[LAYER]["data_offsets"] = [10**9, 10**9 + size]

    _edit_header(path, change)


def _offsets_before_the_start(path: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        size = header[LAYER]["data_offsets"][1] - header[LAYER]["data_offsets"][0]
        header[LAYER]["data_offsets"] = [-size, 0]

    _edit_header(path, change)


def _overlapping(path: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        size = header[LAYER]["data_offsets"][1] - header[LAYER]["data_offsets"][0]
        header[LAYER]["data_offsets"] = [4, 4 + size]

    _edit_header(path, change)


def _wrong_shape(path: Path) -> None:
    _edit_header(path, lambda header: header[LAYER].update(shape=[24, 15]))


def _negative_shape(path: Path) -> None:
    _edit_header(path, lambda header: header[LAYER].update(shape=[-24, -16]))


def _unknown_dtype(path: Path) -> None:
    _edit_header(path, lambda header: header[LAYER].update(dtype="F4"))


def _endless_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2**62) + path.read_bytes()[8:])


@pytest.mark.parametrize(
    "damage",
    [
        _truncate,
        _cut_in_the_header,
        _garbage,
        _empty,
        _offsets_beyond_the_end,
        _offsets_before_the_start,
        _overlapping,
        _wrong_shape,
        _negative_shape,
        _unknown_dtype,
        _endless_header,
    ],
)
def test_a_truncated_or_corrupt_safetensors_file(
    damage: Callable[[Path], None], refuse: Refuse, mine: Series
) -> None:
    damage(mine.checkpoints[3] / "model.safetensors")
    message = refuse(mine.recipe())
    assert str(mine.checkpoints[3]) in message
    assert any(word in message for word in ("again", "corrupt", "quantized"))


@pytest.fixture
def sharded(tmp_path: Path) -> Series:
    return make_series(tmp_path / "run", shards=2)


def test_a_shard_named_in_the_index_but_absent(refuse: Refuse, sharded: Series) -> None:
    (sharded.checkpoints[1] / "model-00002-of-00002.safetensors").unlink()
    message = refuse(sharded.recipe())
    assert "model-00002-of-00002.safetensors" in message
    assert str(sharded.checkpoints[1]) in message


@pytest.mark.parametrize("how", ["../", "absolute", "sub/../../", "symlink"])
def test_an_index_that_points_outside_its_folder(
    how: str, refuse: Refuse, sharded: Series, tmp_path: Path
) -> None:
    folder = sharded.checkpoints[1]
    shard = folder / "model-00002-of-00002.safetensors"
    elsewhere = tmp_path / "elsewhere.safetensors"
    if how == "symlink":
        # Links are how the Hub's cache is built: they are followed.
        shard.rename(elsewhere)
        shard.symlink_to(elsewhere)
        assert "rank" in refuse(sharded.recipe(rank=9))
        return
    shard.rename(elsewhere if how == "absolute" else folder.parent / "elsewhere.safetensors")
    name = str(elsewhere) if how == "absolute" else how + "elsewhere.safetensors"
    path = folder / "model.safetensors.index.json"
    path.write_text(path.read_text().replace(shard.name, name))
    message = refuse(sharded.recipe())
    assert "outside" in message
    assert str(folder) in message
    assert "elsewhere" in message


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}'])
def test_an_index_that_is_none(text: str, refuse: Refuse, sharded: Series) -> None:
    (sharded.checkpoints[1] / "model.safetensors.index.json").write_text(text)
    assert str(sharded.checkpoints[1]) in refuse(sharded.recipe())


def test_a_folder_without_weights_or_config(refuse: Refuse, mine: Series) -> None:
    (mine.checkpoints[1] / "model.safetensors").unlink()
    message = refuse(mine.recipe())
    assert str(mine.checkpoints[1]) in message
    (mine.base / "config.json").unlink()
    mine.checkpoints[1].rename(mine.base.parent / "gone")
    recipe = mine.recipe()
    del recipe["models"][1]
    message = refuse(recipe)
    assert str(mine.base) in message
    assert "config.json" in message


class _Malicious:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("path", ["engine", "mergekit"])
@pytest.mark.parametrize("kind", ["zip", "pickle"])
def test_a_bin_checkpoint_never_runs_code(
    kind: str, path: str, refuse: Refuse, mine: Series, tmp_path: Path
) -> None:
    folder = mine.checkpoints[1]
    state = {**read_weights(folder), "evil": _Malicious(tmp_path / "executed")}
    (folder / "model.safetensors").unlink()
    if kind == "zip":
        torch.save(state, folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(state))
    message = refuse(mine.recipe() if path == "engine" else sliced(mine.recipe()))
    assert not (tmp_path / "executed").exists()
    if path == "engine":
        assert str(folder / "pytorch_model.bin") in message
        assert "safetensors" in message


def test_a_bin_file_without_a_dictionary(refuse: Refuse, mine: Series) -> None:
    folder = mine.checkpoints[1]
    torch.save([1, 2], folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert str(folder / "pytorch_model.bin") in refuse(mine.recipe())


def test_a_truncated_bin_checkpoint(refuse: Refuse, mine: Series) -> None:
    folder = mine.checkpoints[1]
    torch.save(read_weights(folder), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    _truncate(folder / "pytorch_model.bin")
    assert str(folder / "pytorch_model.bin") in refuse(mine.recipe())


def test_remote_code_runs_only_with_trust_remote_code(
    refuse: Refuse, relex: Command, mine: Series, tmp_path: Path
) -> None:
    config = json.loads((mine.base / "config.json").read_text())
    config |= {"model_type": "odd", "auto_map": {"AutoConfig": "configuration_odd.OddConfig"}}
    (mine.base / "config.json").write_text(json.dumps(config))
    (mine.base / "configuration_odd.py").write_text(
        "import os\nfrom transformers import Qwen2Config\n"
        f"os.makedirs({str(tmp_path / 'executed')!r}, exist_ok=True)\n"
        "class OddConfig(Qwen2Config):\n    model_type = 'odd'\n"
    )
    for recipe in (mine.recipe(), sliced(mine.recipe())):
        message = refuse(recipe)
        assert "--trust-remote-code" in message
        assert str(mine.base) in message
        assert not (tmp_path / "executed").exists()
    recipe_path = write_recipe(tmp_path / "recipe.yml", mine.recipe())
    relex("run", "--yes", recipe_path, tmp_path / "out", "--trust-remote-code")
    assert (tmp_path / "executed").exists()


def test_an_unknown_device(refuse: Refuse, mine: Series) -> None:
    assert "nonsense" in refuse(mine.recipe(), "--device", "nonsense")
    if not torch.cuda.is_available():
        assert "--device cuda" in refuse(mine.recipe(), "--device", "cuda")


def test_a_tokenizer_setting_without_tokenizers(refuse: Refuse, mine: Series) -> None:
    message = refuse({**mine.recipe(), "tokenizer_source": "base"})
    assert str(mine.base.parent) in message
    assert "has no tokenizer" in message
