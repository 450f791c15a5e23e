"""Models that are packed for inference, or quantized, are called so: by ``recipe`` and ``run``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from relex_merge.errors import RelexError
from relex_merge.recipe.draft import draft
from tests.fake_hub import Hub
from tests.support.models import Series, write_recipe
from tests.support.refusals import mine
from tests.support.terminal import Command

__all__ = ["mine"]

BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True}
PACKED = "packed for inference"
NEEDED = "extrapolation needs the unquantized checkpoints that the trainer wrote"
pytestmark = pytest.mark.usefixtures("no_figure")


def found(series: object, base: object) -> Any:
    from relex_merge.checkpoints.find import find

    return draft(find(str(series)), base=str(base), target_step=20)


def quantize(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": BNB}))


def pack(folder: Path) -> None:
    """Put a GGUF file in the place of the weights, as llama.cpp's converter calls it."""
    (folder / "model.safetensors").unlink()
    (folder / "model-Q4_K_M.gguf").write_bytes(b"GGUF")


@pytest.mark.parametrize("where", ["disk", "hub", "hub folders"])
def test_gguf_files_are_called_so_by_recipe(where: str, hub: Hub, mine: Series) -> None:
    hub.commit_folder("org/base", mine.base)
    for step, folder in enumerate(mine.checkpoints):
        pack(folder)
        if where == "hub":
            hub.commit_folder("org/run", folder, branch=f"step_{step}")
        elif where == "hub folders":
            hub.commit("org/run", {f"step_{step}/{p.name}": p for p in folder.iterdir()})
    source = mine.base.parent if where == "disk" else "org/run"
    with pytest.raises(RelexError, match=r"model-Q4_K_M\.gguf, a GGUF file") as caught:
        found(source, mine.base)
    assert PACKED in str(caught.value)
    assert NEEDED in str(caught.value)


def test_a_repo_or_folder_of_gguf_files_alone(hub: Hub, tmp_path: Path) -> None:
    hub.commit("org/run-GGUF", {"run-Q4_K_M.gguf": b"GGUF", "run-Q8_0.gguf": b"GGUF"})
    (tmp_path / "run-Q8_0.gguf").touch()
    for source in ("org/run-GGUF", tmp_path, tmp_path / "run-Q8_0.gguf"):
        with pytest.raises(RelexError, match=r"gguf, a GGUF file, packed for inference"):
            found(source, "org/base")


def test_gguf_files_are_called_so_by_run(relex: Command, mine: Series, tmp_path: Path) -> None:
    pack(mine.checkpoints[1])
    done = relex("run", write_recipe(tmp_path / "r.yml", mine.recipe()), tmp_path / "out")
    assert done.code == 1
    assert f"{mine.checkpoints[1]} holds model-Q4_K_M.gguf, a GGUF file" in done.err
    assert NEEDED in done.err


@pytest.mark.parametrize("where", ["disk", "hub"])
@pytest.mark.parametrize("which", ["checkpoints", "base"])
def test_a_quantization_config_is_seen_by_recipe(
    where: str, which: str, hub: Hub, mine: Series
) -> None:
    for folder in mine.checkpoints if which == "checkpoints" else [mine.base]:
        quantize(folder)
    source, base = str(mine.base.parent), str(mine.base)
    if where == "hub":
        source, base = "org/run", "org/base"
        hub.commit_folder(base, mine.base)
        for step, folder in enumerate(mine.checkpoints):
            hub.commit_folder(source, folder, branch=f"step_{step}")
    said = "is quantized (by bitsandbytes, as quantization_config in config.json says)"
    with pytest.raises(RelexError, match="is quantized") as caught:
        found(source, base)
    assert said in str(caught.value)
    assert NEEDED in str(caught.value)
    assert which == "checkpoints" or f"the base {base} " in str(caught.value)


def test_a_quantization_config_of_a_checkpoint_is_seen_by_run(
    relex: Command, mine: Series, tmp_path: Path
) -> None:
    quantize(mine.checkpoints[1])
    done = relex("run", write_recipe(tmp_path / "r.yml", mine.recipe()), tmp_path / "out")
    assert done.code == 1
    assert f"{mine.checkpoints[1]} is quantized (by bitsandbytes" in done.err


def test_what_is_no_series_but_a_file(mine: Series, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yml", mine.recipe())
    with pytest.raises(RelexError, match=f"relex-merge run {recipe} OUT"):
        found(recipe, mine.base)
    with pytest.raises(RelexError, match="give the folder that holds the folders"):
        found(mine.base / "model.safetensors", mine.base)
