"""A miniature run's observed checkpoints as a trainer would have left them: folders of files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from relex_merge.demo.lora import new_adapter
from relex_merge.demo.model import load_model
from tests.benchmarks.miniature import OBSERVED, MiniatureRun, base_folder


def write_series(run: MiniatureRun, cache: Path, folder: Path, dtype: torch.dtype) -> Path:
    """Write base, checkpoints 1 … OBSERVED and a recipe for the last kept step.

    Args:
        run: what was trained.
        cache: where its base lies.
        folder: for everything; made here.
        dtype: of all files.

    Returns:
        The recipe.
    """
    base = folder / "base"
    shutil.copytree(base_folder(run.key, cache), base)
    _convert(base, dtype)
    if run.key.settings.lora is None:
        prefix = "step_"
        for step in range(1, OBSERVED + 1):
            _write_model(run, step, base, folder / f"{prefix}{step}", dtype)
    else:
        prefix = "checkpoint-"
        config = _adapter_config(run, base, folder)
        for step in range(1, OBSERVED + 1):
            _write_adapter(run, step, config, folder / f"{prefix}{step}", dtype)
    content = {
        "merge_method": "relex",
        "base_model": str(base),
        "models": [{"model": f"{folder / prefix}{{1..{OBSERVED}}}"}],
        "parameters": {"target_step": float(run.steps[-1])},
    }
    recipe = folder / "recipe.yml"
    recipe.write_text(json.dumps(content))  # YAML too
    return recipe


def _convert(folder: Path, dtype: torch.dtype) -> None:
    file = folder / "model.safetensors"
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config))


def _tensors(run: MiniatureRun, step: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    row = 1 + run.steps.tolist().index(step)
    return {
        name: rows[row].reshape(run.shapes[name]).to(dtype).contiguous()
        for name, rows in run.weights.items()
    }


def _write_model(
    run: MiniatureRun, step: int, base: Path, folder: Path, dtype: torch.dtype
) -> None:
    folder.mkdir()
    shutil.copyfile(base / "config.json", folder / "config.json")
    save_file(_tensors(run, step, dtype), folder / "model.safetensors", {"format": "pt"})


def _adapter_config(run: MiniatureRun, base: Path, folder: Path) -> dict[str, Any]:
    """Return what PEFT writes about an adapter of these settings."""
    lora = run.key.settings.lora
    assert lora is not None
    written = folder / "adapter"
    new_adapter(load_model(base), lora, 0).save_pretrained(written)
    config: dict[str, Any] = json.loads((written / "adapter_config.json").read_text())
    shutil.rmtree(written)
    return {**config, "base_model_name_or_path": str(base)}


def _write_adapter(
    run: MiniatureRun, step: int, config: dict[str, Any], folder: Path, dtype: torch.dtype
) -> None:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    stored = {n.replace(".default.", "."): t for n, t in _tensors(run, step, dtype).items()}
    save_file(stored, folder / "adapter_model.safetensors", {"format": "pt"})
